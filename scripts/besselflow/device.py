"""Where networks are computed."""

from __future__ import annotations

import torch

from besselflow.job import logger


def set_threads(threads: int) -> None:
    """Limit the threads that PyTorch uses on the CPU."""
    torch.set_num_threads(threads)


def select_device(threads: int) -> torch.device:
    """Choose the GPU where one is visible, else the CPU with a number of threads.

    Parameters
    ----------
    threads : int
        Threads that the job may use on the CPU.
    """
    set_threads(threads)
    if torch.cuda.is_available():
        logger.info("computing on %s", torch.cuda.get_device_name())
        return torch.device("cuda")
    logger.info("computing on the CPU with %d threads", threads)
    return torch.device("cpu")

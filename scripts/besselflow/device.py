"""Where networks are computed."""

from __future__ import annotations

import os
import shutil
import socket

import torch

from besselflow.errors import InputError
from besselflow.hardware import describe_cpu
from besselflow.job import logger
from besselflow.slurm import was_given_gpu


def set_threads(threads: int) -> None:
    """Limit the threads that PyTorch uses on the CPU."""
    torch.set_num_threads(threads)


def select_device(threads: int) -> torch.device:
    """Choose the GPU where one is visible, else the CPU with a number of threads.

    Parameters
    ----------
    threads : int
        Threads that the job may use on the CPU.

    Raises
    ------
    InputError
        Slurm gave this job a GPU that PyTorch does not see: the CPU would take many times as long,
        while the GPU is kept from others.
    """
    set_threads(threads)
    if torch.cuda.is_available():
        logger.info("computing on %s", torch.cuda.get_device_name())
        return torch.device("cuda")
    if was_given_gpu():
        built = torch.version.cuda or "none, it is built for the CPU alone"
        raise InputError(
            f"Slurm gave this job a GPU on {socket.gethostname()}, but PyTorch {torch.__version__} "
            f"(CUDA: {built}) sees none; install a PyTorch that fits the node's driver, have the "
            "node excluded, or ask for no GPU with `cluster.gpus: never`"
        )
    logger.info("computing on the CPU with %d threads", threads)
    return torch.device("cpu")


def describe_device(device: torch.device) -> str:
    """Name the hardware that a network is computed on, for the reports."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return describe_cpu(torch.get_num_threads())


def compute_precision(wanted: str, device: torch.device) -> torch.dtype:
    """Return the precision that hidden layers are computed in while they are trained.

    Parameters
    ----------
    wanted : str
        ``float32``, ``bfloat16``, or ``auto``: bfloat16 where the device has instructions for it.
    device : torch.device
        Where they are computed.
    """
    if wanted == "auto":
        if device.type == "cuda":
            able = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            known = torch.cpu.get_capabilities()
            able = known.get("avx512_bf16", False) or known.get("amx_bf16", False)
        wanted = "bfloat16" if able else "float32"
    return getattr(torch, wanted)


def compile_network(network: torch.nn.Module) -> None:
    """Have a network compiled when it is first used; its weights keep their names.

    Raises
    ------
    InputError
        There is no C++ compiler, which PyTorch needs for it on any device.
    """
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        raise InputError(
            "prior.compile is on, but there is no C++ compiler; install g++, or set it to false"
        )
    network.compile()

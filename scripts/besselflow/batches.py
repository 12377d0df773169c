"""How many items a network computes at once: what memory holds, and half when it runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from besselflow.job import logger

Result = TypeVar("Result")
_SHARE_OF_FREE_MEMORY = 0.5


def batch_size(bytes_per_item: int, device: torch.device, on_cpu: int) -> int:
    """Choose how many items to compute at once.

    Parameters
    ----------
    bytes_per_item : int
        Estimate of the memory that an item takes; too low an estimate costs a few attempts.
    device : torch.device
        A GPU, of whose free memory half is taken, or the CPU.
    on_cpu : int
        The number on the CPU, whose caches and not its memory decide.
    """
    if device.type != "cuda":
        return max(1, on_cpu)
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, int(_SHARE_OF_FREE_MEMORY * free) // max(1, bytes_per_item))


def in_batches(
    compute: Callable[[slice], Result], total: int, size: int
) -> Iterator[tuple[slice, Result]]:
    """Compute items batch by batch, and halve the batches whenever the GPU runs out of memory.

    Parameters
    ----------
    compute : callable
        Takes a slice of the items. It is called again for the items of a batch that failed.
    total : int
        Number of items.
    size : int
        Items per batch at first.

    Yields
    ------
    slice, Result
        The items of a batch, in order, and what was computed for them.

    Raises
    ------
    torch.OutOfMemoryError
        A single item does not fit.
    """
    start = 0
    while start < total:
        part = slice(start, min(start + size, total))
        try:
            result = compute(part)
        except torch.OutOfMemoryError:
            size = (part.stop - part.start) // 2
            if size == 0:
                raise
            logger.warning("the GPU is out of memory; going on with batches of %d", size)
        else:
            yield part, result
            start = part.stop
            continue
        # Outside of the handler, whose traceback would keep the tensors of the failed attempt.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

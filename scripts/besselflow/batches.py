"""How much a network computes at once: what memory holds, and half when it runs out."""

from __future__ import annotations

import math
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
    return max(1, _memory_to_take(device) // max(1, bytes_per_item))


def tile_size(edge: int, bytes_per_pixel: int, margin: int, device: torch.device) -> int:
    """Choose the edge of the largest square tile of an image that can be computed at once.

    Parameters
    ----------
    edge : int
        Edge of the image. It is one tile on the CPU, and on a GPU that has the memory for it.
    bytes_per_pixel : int
        Estimate of the memory that a pixel takes.
    margin : int
        Pixels that are computed besides on every side of a tile.
    device : torch.device
        A GPU, of whose free memory half is taken, or the CPU.
    """
    if device.type != "cuda":
        return edge
    fits = math.isqrt(_memory_to_take(device) // bytes_per_pixel)
    return edge if fits >= edge else max(1, fits - 2 * margin)


def _memory_to_take(device: torch.device) -> int:
    free, _ = torch.cuda.mem_get_info(device)
    return int(_SHARE_OF_FREE_MEMORY * free)


class Batches:
    """Computes items batch by batch, and halves the batches whenever the GPU runs out of memory.

    What ran out of memory once is not tried again in later calls: how much an item takes of it is
    an estimate, which can be too low for a larger network.

    Parameters
    ----------
    device : torch.device
        Where the items are computed.
    """

    def __init__(self, device: torch.device):
        self.device = device
        # What ever fits at once, by the estimates of those who ask.
        self._most_bytes = math.inf

    def __call__(
        self, compute: Callable[[slice], Result], total: int, bytes_per_item: int, on_cpu: int
    ) -> Iterator[tuple[slice, Result]]:
        """Compute items.

        Parameters
        ----------
        compute : callable
            Takes a slice of the items. It is called again for the items of a batch that failed.
        total : int
            Number of items.
        bytes_per_item, on_cpu : int
            What decides how many are computed at once; see `batch_size`.

        Yields
        ------
        slice, Result
            The items of a batch, in order, and what was computed for them.

        Raises
        ------
        torch.OutOfMemoryError
            A single item does not fit.
        """
        size = batch_size(bytes_per_item, self.device, on_cpu)
        start = 0
        while start < total:
            most = max(1, int(min(size, self._most_bytes // bytes_per_item)))
            part = slice(start, min(start + most, total))
            try:
                result = compute(part)
            except torch.OutOfMemoryError:
                count = part.stop - part.start
                self._most_bytes = bytes_per_item * count / 2
                if count == 1:
                    raise
                logger.warning("the GPU is out of memory; going on with batches of %d", count // 2)
            else:
                yield part, result
                start = part.stop
                continue
            # Outside of the handler, whose traceback would keep the tensors of the failed attempt.
            _empty_cache()


def in_tiles(compute: Callable[[int], Result], tile: int, multiple: int) -> tuple[Result, int]:
    """Compute with square tiles, and halve these whenever one alone does not fit on the GPU.

    Parameters
    ----------
    compute : callable
        Takes the edge of a tile, a multiple of `multiple`, and is called again with half of it.
    tile, multiple : int
        Edge at first, which is rounded down, and what edges are multiples of.

    Returns
    -------
    Result
        What was computed.
    int
        With which edge.

    Raises
    ------
    torch.OutOfMemoryError
        The smallest tile does not fit.
    """
    while True:
        tile = max(multiple, tile // multiple * multiple)
        try:
            return compute(tile), tile
        except torch.OutOfMemoryError:
            if tile == multiple:
                raise
            tile //= 2
            logger.warning("the GPU is out of memory; going on with tiles of %d pixels", tile)
        _empty_cache()


def _empty_cache() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

"""Arrays on disk, read lazily: what can't be decoded ends in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import zarr

from besselflow.errors import InputError

COPY_AGAIN = "copy it again from the microscope"
"""What to do about pixels of the user that can't be decoded."""


class _Explained:
    """A Zarr array whose chunks name file, place and remedy where they can't be decoded."""

    def __init__(self, array: zarr.Array, path: Path, axes: str, remedy: str):
        self._array, self._path, self._axes, self._remedy = array, path, axes, remedy
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, index: Any) -> np.ndarray:
        try:
            return self._array[index]
        except (InputError, MemoryError):
            raise
        except PermissionError as error:
            raise InputError(f"{self._path}: permission denied; make it readable") from error
        # Codecs raise whatever they like.
        except Exception as error:
            raise InputError(
                f"{self._path}: {self._name(index)} can't be decoded ({_in_words(error)}); "
                f"{self._remedy}"
            ) from error

    def _name(self, index: Any) -> str:
        """Name the place of a chunk outside the plane, such as ``the image at t 0, z 3``."""
        parts = index if isinstance(index, tuple) else (index,)
        places = [
            f"{axis.lower()} {_span(part, size)}"
            for axis, part, size in zip(self._axes, parts, self.shape, strict=False)
            if axis not in "YX" and isinstance(part, slice | int | np.integer)
        ]
        return "the image" + (f" at {', '.join(places)}" if places else "")


def open_explained(
    array: zarr.Array,
    path: Path,
    axes: str,
    remedy: str,
    chunks: tuple[int, ...] | None = None,
) -> da.Array:
    """Open a Zarr array lazily, so that a chunk that can't be decoded names its file.

    Parameters
    ----------
    array : zarr.Array
        Any number of axes.
    path : pathlib.Path
        What the user knows it by.
    axes : str
        A letter per axis; those other than ``Y`` and ``X`` tell where a damaged chunk lies.
    remedy : str
        What to do about it.
    chunks : tuple of int, optional
        Chunks of the result, by default those of the array.

    Returns
    -------
    dask.array.Array
        Computing it raises an InputError where a chunk is damaged.
    """
    source = _Explained(array, path, axes, remedy)
    # A name by content would need a hash of the file handles in it.
    return da.from_array(source, array.chunks if chunks is None else chunks, name=False)


def _span(part: slice | int, size: int) -> str:
    indices = range(size)[part]
    if isinstance(indices, int):
        return str(indices)
    return str(indices[0]) if len(indices) == 1 else f"{indices[0]} to {indices[-1]}"


def _in_words(error: Exception) -> str:
    """Return what a codec says, which may be nothing but the name of the error."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")

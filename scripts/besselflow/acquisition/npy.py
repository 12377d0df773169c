"""NumPy arrays in the order (Y, X, Z) in which the published data come."""

from __future__ import annotations

from pathlib import Path

import dask.array as da
import numpy as np

from besselflow.acquisition.model import Acquisition
from besselflow.errors import InputError

FORMAT = "NumPy array"
_MAGIC = b"\x93NUMPY"
_BLOCK_BYTES = 32_000_000


def is_npy(path: Path) -> bool:
    """Return whether a file begins like a NumPy array."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def read_npy(path: Path) -> Acquisition:
    """Map an array of shape (Y, X, Z) into memory.

    Raises
    ------
    InputError
        It has other than three axes, is truncated, or holds no numbers.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except PermissionError as error:
        raise InputError(f"{path}: permission denied; make the file readable") from error
    except ValueError as error:
        raise InputError(
            f"{path}: not a readable array ({error}), such as one that is truncated; save it again "
            f"with numpy.save, as plain numbers"
        ) from error
    if array.ndim != 3:
        raise InputError(
            f"{path}: the array has the shape {array.shape}, but three axes (Y, X, Z) are "
            f"understood; save one volume per file, or export it as OME-TIFF"
        )
    if array.dtype.kind not in "uif":
        raise InputError(
            f"{path}: values of type {array.dtype} are not intensities; save plain numbers"
        )
    # Whole lines along z, as they lie on disk.
    line = max(1, array.shape[1] * array.shape[2] * array.dtype.itemsize)
    rows = max(1, min(array.shape[0], _BLOCK_BYTES // line))
    lazy = da.from_array(array, chunks=(rows, -1, -1), name=f"npy-{path}-{path.stat().st_mtime_ns}")
    native = array.dtype.newbyteorder("=")
    data = lazy.transpose(2, 0, 1)[None, None].astype(native)
    return Acquisition(data, path, FORMAT, files=(path,))

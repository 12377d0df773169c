"""The few operations that are the same for numpy arrays and torch tensors."""

from __future__ import annotations

from types import ModuleType

import numpy as np


def namespace(array) -> ModuleType:
    """Return the library that an array belongs to, `numpy` or `torch`."""
    if isinstance(array, np.ndarray):
        return np
    # Torch takes a second to import, which those who need no tensor should not wait for.
    import torch

    return torch


def like(values, array):
    """Return values as an array of the library, precision and device of another array."""
    if isinstance(array, np.ndarray):
        return np.asarray(values, array.dtype)
    return namespace(array).as_tensor(values, dtype=array.dtype, device=array.device)


def to_double(array):
    """Return an array in double precision, on its own device."""
    if isinstance(array, np.ndarray):
        return array.astype(np.float64)
    return array.double()


def multiply(matrix: np.ndarray, array):
    """Multiply a matrix (N, M) into the third-last axis of an array (..., M, Y, X).

    Numpy integers are computed in double precision.
    """
    if isinstance(array, np.ndarray) and array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    flat = array.reshape(*array.shape[:-2], -1)
    return (like(matrix, array) @ flat).reshape(*array.shape[:-3], len(matrix), *array.shape[-2:])

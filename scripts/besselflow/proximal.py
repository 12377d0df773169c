r"""The solves behind a proximal step where the noise differs from pixel to pixel.

Both solve :math:`(A A^T + R) w = r` for the P values of all pixels, with the noise ratios on the
diagonal of R, in double precision: the step back to the volume multiplies errors of w.
"""

from __future__ import annotations

import warnings

import numpy as np

from besselflow.arrays import like, multiply, namespace, to_double
from besselflow.lateral import scale_modes

_VALUES_AT_ONCE = 2**23
_NEGLIGIBLE = 1e-13
_WIDEST_BAND = 3
RESIDUAL = {4: 1e-6, 8: 1e-8}
"""Bytes of a number -> relative residual at which the conjugate gradients end."""
_MOST_ITERATIONS = 500
_FAR_ABOVE = 300.0


def solve_pixels(gram: np.ndarray, misfit, ratio):
    """Solve one P x P system per pixel, exactly.

    Parameters
    ----------
    gram : numpy.ndarray, shape (P, P)
        A A^T, the same for all pixels. Where few beams overlap it is banded (diagonal where none
        do), and its factors have no more bands; else every pixel gets a dense solve.
    misfit : numpy.ndarray or torch.Tensor, shape (..., P, Y, X)
        Right-hand side r.
    ratio : array, broadcastable to the misfit
        Diagonal R, positive.

    Returns
    -------
    numpy.ndarray or torch.Tensor, shape (..., P, Y, X)
        w, of the kind and precision of the misfit. Only some pixels are in work at a time, so that
        memory is bounded.
    """
    count = len(gram)
    ratio = _positive(ratio, misfit)
    overlaps = np.argwhere(np.abs(gram) > _NEGLIGIBLE * np.abs(gram).max())
    band = int(np.ptp(overlaps, axis=1).max())
    solve, values = (_solve_banded, band + 1) if band <= _WIDEST_BAND else (_solve_dense, count)
    at_once = max(1, _VALUES_AT_ONCE // (count * values))
    right = misfit.reshape(-1, count, misfit.shape[-2] * misfit.shape[-1])
    diagonal = ratio.reshape(right.shape)
    library = namespace(misfit)
    solved = []
    for one, own in zip(right, diagonal, strict=True):
        parts = [slice(start, start + at_once) for start in range(0, one.shape[1], at_once)]
        pieces = [
            like(solve(gram, band, to_double(one[:, part]), to_double(own[:, part])), one)
            for part in parts
        ]
        solved.append(library.concatenate(pieces, axis=1))
    return library.stack(solved).reshape(misfit.shape)


def _solve_banded(gram: np.ndarray, band: int, right, diagonal):
    """Solve by the factors L D L^T, one column after another for all pixels (P, N) at once."""
    count = len(gram)
    factor: dict[tuple[int, int], object] = {}
    pivots, solved = [], []
    for j in range(count):
        near = range(max(0, j - band), j)
        pivot = gram[j, j] + diagonal[j]
        value = right[j]
        for k in near:
            pivot = pivot - factor[j, k] ** 2 * pivots[k]
            value = value - factor[j, k] * solved[k]
        pivots.append(pivot)
        solved.append(value)
        for i in range(j + 1, min(count, j + band + 1)):
            entry = gram[i, j]
            for k in range(max(0, i - band), j):
                entry = entry - factor[i, k] * factor[j, k] * pivots[k]
            factor[i, j] = entry / pivot
    for j in reversed(range(count)):
        value = solved[j] / pivots[j]
        for i in range(j + 1, min(count, j + band + 1)):
            value = value - factor[i, j] * solved[i]
        solved[j] = value
    return namespace(right).stack(solved)


def _solve_dense(gram: np.ndarray, band: int, right, diagonal):
    library = namespace(right)
    eye = like(np.eye(len(gram)), right)
    systems = like(gram, right) + eye * diagonal.T[:, :, None]
    return library.linalg.solve(systems, right.T[:, :, None])[..., 0].T


def solve_blurred(gram: np.ndarray, squared: np.ndarray, misfit, ratio):
    r"""Solve :math:`(G \otimes B^2 + R) w = r` by preconditioned conjugate gradients.

    The preconditioner is the exact inverse for the geometric mean of the ratios, whose solution is
    also the start. The number of iterations grows with the root of the largest over the smallest
    ratio: some twenty for photon noise. Pixels whose ratio is far above all others, such as masked
    ones, are left out of both, and each is preconditioned by its own ratio.

    Parameters
    ----------
    gram : numpy.ndarray, shape (P, P)
        The axial part G = A A^T.
    squared : numpy.ndarray, shape (Y, X)
        Squared eigenvalues of the blur B in the cosine modes.
    misfit : numpy.ndarray or torch.Tensor, shape (..., P, Y, X)
        Right-hand side r; every leading index is a system of its own.
    ratio : array, broadcastable to the misfit
        Diagonal R, positive.

    Returns
    -------
    numpy.ndarray or torch.Tensor, shape (..., P, Y, X)
        w with a relative residual of at most 1e-8 (1e-6 in single precision), of the kind and
        precision of the misfit. After 500 iterations, what was reached is returned with a warning.
    """
    right, diagonal = to_double(misfit), to_double(_positive(ratio, misfit))
    values, vectors = np.linalg.eigh(gram)
    library = namespace(right)
    typical = float(library.exp(library.log(diagonal).mean()))
    ordinary = diagonal <= _FAR_ABOVE * typical
    everywhere = bool(ordinary.all())
    if not everywhere:
        typical = float(library.exp(library.log(diagonal[ordinary]).mean()))
    inverse = 1 / (np.maximum(values, 0)[:, None, None] * squared + typical)

    def system(w):
        return scale_modes(multiply(gram, w), squared) + diagonal * w

    def precondition(r):
        within = r if everywhere else r * ordinary
        w = multiply(vectors, scale_modes(multiply(vectors.T, within), inverse))
        return w if everywhere else library.where(ordinary, w, r / diagonal)

    def inner(a, b):
        return (a * b).sum(axis=(-3, -2, -1), keepdims=True)

    # Keeps 0 / 0 out of systems that are solved already.
    tiny = np.finfo(np.float64).tiny
    w = precondition(right)
    residual = right - system(w)
    goal = RESIDUAL[misfit.dtype.itemsize] ** 2 * inner(right, right)
    direction, energy = 0.0, None
    for _ in range(_MOST_ITERATIONS):
        if bool((inner(residual, residual) <= goal).all()):
            return like(w, misfit)
        towards = precondition(residual)
        previous, energy = energy, inner(residual, towards)
        share = 0.0 if previous is None else energy / (previous + tiny)
        direction = towards + share * direction
        product = system(direction)
        step = energy / (inner(direction, product) + tiny)
        w = w + step * direction
        residual = residual - step * product
    warnings.warn(
        f"the proximal step did not converge in {_MOST_ITERATIONS} iterations; the noise of the "
        f"pixels differs too much, so raise the smallest variance",
        RuntimeWarning,
        stacklevel=2,
    )
    return like(w, misfit)


def _positive(ratio, misfit):
    """Return the ratio in the kind and shape of the misfit, or refuse it."""
    ratio = like(ratio, misfit)
    if not bool((ratio > 0).all()):
        raise ValueError("the ratio of noise to volume variance must be positive at every pixel")
    return namespace(misfit).broadcast_to(ratio, misfit.shape)

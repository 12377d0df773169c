"""Say what limits the correction of a fluctuating laser.

`python tests/benchmarks/laser_limits.py` images the volumes of `corrections_gain.py` in steps of
3 um with a laser that fluctuates by 10 %, and prints two tables. The first has the PSNR per slice
of `spectral` with gains from which a constant, a line or a parabola of the true ones is missing,
with those that the correction finds, and without any. The second has how far gains are from the
true ones: first those that the correction finds, from one projection to the next and in all (but
for a constant); then those of the greatest likelihood (`besselflow.corrections.likelihood`), before
anything is believed of them, as the root mean square over the fifths of their cosine modes, from
slow to fast; and last what the latter would be if the sample were a Gaussian process.
"""

from dataclasses import replace

import numpy as np
import scipy.fft
import scipy.optimize
from corrections_gain import CASES, VOXEL_UM, acquire, as_projections, psnr, reconstruct, volumes

from besselflow.baselines.spectral import fit_spectral_model
from besselflow.config import Corrections
from besselflow.corrections.likelihood import RegionModes
from besselflow.store import Projections

STEP_UM = 3.0
_LASER = next(case for case in CASES if case.name == "laser, 10 %")
_LEAST_SIGNAL = 3.0
_FIFTHS = 5


def without_smooth(log_gains: np.ndarray, degree: int) -> np.ndarray:
    """Subtract the polynomial of a degree that fits best."""
    time = np.linspace(-1, 1, len(log_gains))
    design = np.vander(time, degree + 1)
    return log_gains - design @ np.linalg.lstsq(design, log_gains, rcond=None)[0]


def divided(measured: Projections, log_gains: np.ndarray) -> Projections:
    """Divide projections by gains."""
    factors = np.exp(-log_gains).astype(np.float32)[:, None, None]
    return replace(measured, data=measured.data * factors)


def likelihood_errors(measured: Projections, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the errors of the cosine modes but the constant, and the standard ones of the model.

    Parameters
    ----------
    measured : Projections
        Not corrected.
    truth : numpy.ndarray, shape (P,)
        Logarithms of the gains.

    Returns
    -------
    errors, standard : numpy.ndarray, shape (P - 1,)
    """
    region, operator = np.asarray(measured.data[0, 0]), measured.operator
    model = fit_spectral_model([region], operator, VOXEL_UM)
    modes = RegionModes.of(region, operator, model, VOXEL_UM, _LEAST_SIGNAL)
    found = scipy.optimize.minimize(
        lambda gains: modes.by_gain(gains)[:2], np.zeros(len(truth)), jac=True
    )
    covariance = np.linalg.inv(modes.by_gain(found.x)[2])
    cosines = scipy.fft.dct(np.eye(len(truth)), norm="ortho", axis=0)[1:]
    return cosines @ (found.x - truth), np.sqrt(np.diag(cosines @ covariance @ cosines.T))


def in_fifths(values: np.ndarray) -> str:
    """Write the root mean square of each fifth."""
    parts = np.array_split(values, _FIFTHS)
    return " / ".join(f"{100 * np.sqrt(np.mean(part**2)):.1f}" for part in parts)


def main() -> None:
    """Print the tables."""
    columns = ["volume", "undisturbed", "true gains", "but a constant", "but a line"]
    columns += ["but a parabola", "gains as found", "uncorrected"]
    print("| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns), flush=True)
    errors = []
    for name, volume in volumes():
        plain, disturbed = (acquire(volume, STEP_UM, case) for case in (CASES[0], _LASER))
        measured, truth = as_projections(disturbed, None), np.log(disturbed.truth["brightness"])
        shown = [as_projections(plain, None), divided(measured, truth)]
        shown += [divided(measured, without_smooth(truth, degree)) for degree in range(3)]
        corrected = as_projections(disturbed, Corrections())
        shown += [corrected, measured]
        scores = [psnr(reconstruct(each), volume, plain.positions_um) for each in shown]
        print(f"| {name} | " + " | ".join(f"{score:.2f}" for score in scores) + " |", flush=True)
        own, standard = likelihood_errors(measured, truth)
        left = np.log(corrected.attributes["corrections"]["laser"]["gains"]) - truth
        found = f"{np.diff(left, 2).std() / np.sqrt(6):.1%} | {left.std():.1%}"
        errors.append(f"| {name} | {found} | {in_fifths(own)} | {in_fifths(standard)} |")
    columns = ["volume", "found: from one to the next", "in all"]
    columns += ["greatest likelihood (%)", "if it were Gaussian (%)"]
    print("\n| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns))
    print("\n".join(errors))


if __name__ == "__main__":
    main()

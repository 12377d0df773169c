"""Compare disturbed acquisitions with and without corrections, by `spectral` or by the network.

`python tests/benchmarks/corrections_gain.py` prints a table, volume x disturbance, with the PSNR
per slice without corrections, with the default ones, and of an undisturbed acquisition, and what
the corrections found. The volumes are a phantom of each kind and, where they are there, the first
vessels and the first neuron of `../shared/bench/train`. The beam is a box of 6 slices, in steps of
3 (overlapping) or 6. Where displacements were corrected, a further column compares with a ground
truth that is bent as the remaining displacements say: what is smooth in depth can't be known.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import dask.array as da
import numpy as np
import tifffile
from scipy.ndimage import shift

from besselflow.baselines.spectral import SpectralModel, posterior_mean
from besselflow.baselines.spectral_masked import fill_masked, fit_with_bounds
from besselflow.beam import box_profile
from besselflow.config import Corrections, Inr
from besselflow.corrections import counts_to_intensity, intensity_scale, resolve_detector
from besselflow.corrections.pixels import correct_pixels
from besselflow.corrections.whole import correct_whole
from besselflow.disturbance import remaining_light
from besselflow.errors import InputError
from besselflow.phantoms import PHANTOMS, draw_phantom
from besselflow.projection import AxialGrid
from besselflow.simulate import (
    Detector,
    Disturbance,
    SimulatedAcquisition,
    simulate_acquisition,
    stage_positions,
)
from besselflow.store import Projections

TRAIN = Path(__file__).parents[3] / "shared" / "bench" / "train"
VOXEL_UM = (1.0, 1.0, 1.0)
SHAPE = (64, 96, 96)
_OFFSET = 100.0


@dataclass(frozen=True)
class Case:
    """A disturbed acquisition.

    Attributes
    ----------
    name : str
    disturbance : Disturbance
    bit_depth : int
        Of the detector.
    settings : Corrections
        Corrections to use; the defaults, but for what has to be given.
    estimated : bool
        Whether offset and gain are estimated; what is reconstructed is put on the scale of the
        true ones then, since a sheet without them has no other.
    flat_given : bool
        Whether the true flat field is given.
    """

    name: str
    disturbance: Disturbance
    bit_depth: int = 16
    settings: Corrections = field(default_factory=Corrections)
    estimated: bool = False
    flat_given: bool = False


CASES = (
    Case("nothing", Disturbance()),
    Case("offset and gain unknown", Disturbance(), estimated=True),
    Case("hot pixels, 0.3 %", Disturbance(hot_pixels=0.003)),
    Case("11 bits instead of 16", Disturbance(), bit_depth=11),
    Case("scan phase, 0.7 pixels", Disturbance(scan_phase=0.7)),
    Case("flat field, 40 % less light in a corner", Disturbance(vignetting=0.4), flat_given=True),
    Case("line noise, 3 %", Disturbance(lines=0.03)),
    Case("line noise, 10 %", Disturbance(lines=0.1)),
    Case("laser, 10 %", Disturbance(laser=0.1)),
    Case("bleaching, 40 %", Disturbance(bleaching=0.4)),
    Case("bleaching, 40 %, given", Disturbance(bleaching=0.4), settings=Corrections(bleaching=0.4)),
    Case("attenuation, 150 um", Disturbance(attenuation_um=150)),
    Case(
        "attenuation, 150 um, given",
        Disturbance(attenuation_um=150),
        settings=Corrections(depth_attenuation=150),
    ),
    Case(
        "attenuation, 150 um, auto",
        Disturbance(attenuation_um=150),
        settings=Corrections(depth_attenuation="auto"),
    ),
    Case("no attenuation, auto", Disturbance(), settings=Corrections(depth_attenuation="auto")),
    Case("jitter, 1 um", Disturbance(jitter_um=1.0)),
    Case("drift, 0.3 um a step", Disturbance(drift_um=0.3)),
)


def volumes(shape: tuple[int, int, int] = SHAPE) -> Iterator[tuple[str, np.ndarray]]:
    """Yield phantoms of a shape (Z, Y, X) and training volumes with their names."""
    for kind in PHANTOMS:
        yield f"phantom {kind}", draw_phantom(kind, shape, 11, VOXEL_UM)
    for name in ("vasculature-train-1", "dendrite-train-1"):
        path = TRAIN / f"{name}.tif"
        if path.is_file():
            volume = tifffile.imread(path).astype(np.float32) - _OFFSET
            yield name, np.clip(volume / volume.max(), 0, 1)
        else:
            print(f"{path} is missing: skipped")


def acquire(volume: np.ndarray, step_um: float, case: Case) -> SimulatedAcquisition:
    """Simulate the acquisition of a case."""
    profile = box_profile(6.0)
    positions = stage_positions(len(volume), VOXEL_UM[0], profile, step_um)
    detector = Detector(bit_depth=case.bit_depth)
    return simulate_acquisition(
        volume, profile, positions, VOXEL_UM, detector, case.disturbance, seed=3
    )


def as_projections(
    acquisition: SimulatedAcquisition, settings: Corrections | None, estimated: bool = False
) -> Projections:
    """Convert counts to photons, with corrections or without any."""
    counts = da.from_array(acquisition.counts[None, None])
    stated = ("auto", "auto") if estimated else (Detector().offset, Detector().gain)
    detector = resolve_detector(counts, *stated, "simulated")
    count = len(acquisition.positions_um)
    raw = Projections(
        data=counts_to_intensity(counts, detector.offset, detector.gain),
        positions_um=acquisition.positions_um,
        profile=box_profile(6.0),
        grid=AxialGrid(0.0, VOXEL_UM[0], len(acquisition.seen)),
        pixel_size_um=VOXEL_UM[1:],
        unit="photons",
    )
    if settings is None:
        return raw
    pixels = correct_pixels(counts, detector.offset, detector.gain, settings)
    corrected = replace(
        raw,
        data=pixels.intensity,
        masked=pixels.masked,
        saturated=pixels.saturated,
        pictures=pixels.pictures,
        attributes={"corrections": detector.record | pixels.record},
    )
    return correct_whole(corrected, np.arange(count), settings)


def reconstruct(measured: Projections, method: str = "spectral") -> np.ndarray:
    """Return the posterior mean of the spectral Gaussian process, or the network's, (Z, Y, X)."""
    data = np.asarray(measured.data[0, 0])
    masked, saturated = (
        at(0, 0, slice(None), slice(None)) for at in (measured.masked_at, measured.saturated_at)
    )
    model = fit_with_bounds([data], [masked], [saturated], measured.operator, VOXEL_UM)
    filled = fill_masked(data, masked, measured.operator, model, VOXEL_UM, saturated)
    volume = posterior_mean(filled, measured.operator, model, VOXEL_UM)
    return volume if method == "spectral" else fit_network(measured, model, volume)


def fit_network(measured: Projections, model: SpectralModel, spectral: np.ndarray) -> np.ndarray:
    """Return the volume (Z, Y, X) of the network, given the spectral one."""
    # Torch takes a second to import.
    import torch

    from besselflow.inr.fit import InrProblem, fit_inr

    torch.set_num_threads(1)
    data, everywhere = np.asarray(measured.data[0, 0]), (slice(None), slice(None))
    problem = InrProblem(
        data,
        measured.operator,
        VOXEL_UM,
        intensity_scale(data),
        model,
        measured.operator.forward(spectral),
        measured.masked_at(0, 0, *everywhere),
        measured.saturated_at(0, 0, *everywhere),
    )
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder, "checkpoint")
        return fit_inr(problem, Inr(), 0, checkpoint, "network", torch.device("cpu")).volume


def psnr(found: np.ndarray, volume: np.ndarray, positions_um: np.ndarray) -> float:
    """Return the mean over the slices between the outermost projections, in dB."""
    truth = volume * Detector().photons
    between = slice(int(np.ceil(positions_um[0])), int(np.floor(positions_um[-1])) + 1)
    peak = truth.max()
    errors = (np.clip(found[between], 0, peak) - truth[between]) ** 2
    return float(np.mean(10 * np.log10(peak**2 / errors.mean(axis=(1, 2)))))


def bend(volume: np.ndarray, positions_um: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Displace every slice of a volume as the projections around it are, (P, 2) pixels."""
    own = [np.interp(np.arange(len(volume)), positions_um, axis) for axis in pixels.T]
    slices = zip(volume, np.transpose(own), strict=True)
    return np.stack([shift(image, d, order=3, mode="nearest") for image, d in slices])


def as_dim(volume: np.ndarray, step_um: float, case: Case) -> Projections:
    """Return an undisturbed acquisition of as little light as attenuation leaves, made bright."""
    clean, disturbed = (acquire(volume, step_um, each) for each in (CASES[0], case))
    left = remaining_light(disturbed.positions_um, disturbed.positions_um, case.disturbance)
    photons = clean.photons * left[:, None, None]
    counts = Detector(bit_depth=case.bit_depth).expose(photons, np.random.default_rng(3))
    measured = as_projections(replace(clean, counts=counts), None)
    data = measured.data / left[:, None, None].astype(np.float32)
    return replace(measured, data=data, noise_factors=1 / left)


def measure(
    volume: np.ndarray, step_um: float, case: Case, undisturbed: float, method: str = "spectral"
) -> dict:
    """Return the scores of a case."""
    acquisition = acquire(volume, step_um, case)
    positions = acquisition.positions_um
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "flat.tif")
        tifffile.imwrite(path, acquisition.truth["flat_field"].astype(np.float32))
        settings = case.settings
        if case.flat_given:
            settings = settings.model_copy(update={"flat_field": str(path)})
        corrected = as_projections(acquisition, settings, case.estimated)
    volume_found, found = reconstruct(corrected, method), corrected.attributes["corrections"]
    if case.estimated:
        volume_found = on_true_scale(volume_found, found["photon_transfer"]["lines"][0])
    uncorrected = reconstruct(as_projections(acquisition, None), method)
    scores = {
        "uncorrected": psnr(uncorrected, volume, positions),
        "corrected": psnr(volume_found, volume, positions),
        "undisturbed": undisturbed,
        "bent": None,
        "found": describe(found, acquisition),
    }
    if found["depth_attenuation"].get("given"):
        dim = psnr(reconstruct(as_dim(volume, step_um, case), method), volume, positions)
        scores["found"] = f"{dim:.2f} with as little light in every projection"
    if found["drift"]["applied"]:
        left = acquisition.truth["drift_um"] - np.array(found["drift"]["pixels"])
        scores["bent"] = psnr(volume_found, bend(volume, positions, left), positions)
    return scores


def on_true_scale(found: np.ndarray, line: dict) -> np.ndarray:
    """Turn photons by the estimated offset and gain into those by the true ones."""
    return (found * line["gain"] + line["offset"] - Detector().offset) / Detector().gain


def describe(found: dict, acquisition: SimulatedAcquisition) -> str:
    """Say what was found, and how far it is from the truth."""
    truth, words = acquisition.truth, []
    if "photon_transfer" in found:
        line = found["photon_transfer"]["lines"][0]
        words.append(
            f"gain {line['gain']:.2f} +- {line['gain_error']:.2f} of {Detector().gain:g}, "
            f"offset {line['offset']:.1f} +- {line['offset_error']:.1f} of "
            f"{Detector().offset - Detector().read_noise ** 2 / Detector().gain:g}"
        )
    if found["hot_pixels"]["applied"]:
        words.append(f"{found['hot_pixels']['pixels']} of {truth['hot_pixels'].sum()} hot pixels")
    if found["saturation"]["applied"]:
        words.append(f"{found['saturation']['share']:.2%} saturated")
    if found["scan_phase"]["applied"]:
        words.append(f"phase {found['scan_phase']['pixels']:.3f} pixels")
    if found["line_noise"]["applied"]:
        words.append(
            f"lines flicker by {found['line_noise']['spread']:.1%}, "
            f"known to {found['line_noise']['gain_error']:.1%}"
        )
    if found["laser"]["applied"]:
        error = np.log(found["laser"]["gains"]) - np.log(truth["brightness"])
        words.append(f"gains to {np.diff(error, 2).std() / np.sqrt(6):.3f}")
    if found["depth_attenuation"]["applied"] and not found["depth_attenuation"]["given"]:
        attenuation = found["depth_attenuation"]
        words.append(f"length {attenuation['length_um']:.0f} +- {attenuation['error_um']:.0f} um")
    if found["drift"]["applied"]:
        error = np.array(found["drift"]["pixels"]) - truth["drift_um"]
        words.append(
            f"displacements to {np.diff(error, 2, axis=0).std() / np.sqrt(6):.3f} pixels from one "
            f"to the next, {np.sqrt((error**2).mean()):.2f} in all"
        )
    return "; ".join(words) or "-"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=float, nargs="+", default=[3.0, 6.0], help="in um")
    parser.add_argument("--volumes", nargs="*", help="names; all by default")
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE, help="Z Y X of the phantoms")
    parser.add_argument("--disturbances", nargs="*", help="parts of their names; all by default")
    parser.add_argument("--method", choices=("spectral", "inr"), default="spectral")
    chosen = parser.parse_args()
    cases = [
        case
        for case in CASES
        if not chosen.disturbances or any(part in case.name for part in chosen.disturbances)
    ]
    columns = ["volume", "step (um)", "disturbance", "uncorrected", "corrected", "undisturbed"]
    columns += ["against the bent truth", "found"]
    print("| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns))
    for name, volume in volumes(tuple(chosen.shape)):
        if chosen.volumes and name not in chosen.volumes:
            continue
        for step in chosen.steps:
            plain = acquire(volume, step, CASES[0])
            clean = reconstruct(as_projections(plain, None), chosen.method)
            undisturbed = psnr(clean, volume, plain.positions_um)
            for case in cases:
                cells = [name, f"{step:g}", case.name]
                try:
                    scores = measure(volume, step, case, undisturbed, chosen.method)
                except InputError as error:
                    # What can't be estimated is refused, which is no reason to leave out the rest.
                    print("| " + " | ".join([*cells, *4 * ["-"], f"refused: {error}"]) + " |")
                    continue
                for key in ("uncorrected", "corrected", "undisturbed", "bent"):
                    cells.append("-" if scores[key] is None else f"{scores[key]:.2f}")
                print("| " + " | ".join([*cells, scores["found"]]) + " |", flush=True)


if __name__ == "__main__":
    main()

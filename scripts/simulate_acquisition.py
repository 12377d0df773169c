#!/usr/bin/env python3
"""Simulate a Bessel-beam acquisition of a known volume, to plan an experiment before doing it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile

from besselflow.acquisition.tiff import refuse_inverted
from besselflow.beam import AxialProfile, LateralPsf, parse_beam_profile, read_lateral_psf
from besselflow.beam.spec import absolute_spec
from besselflow.command_line import command_parser, errors_in_a_line
from besselflow.sample_sheet import COLUMNS
from besselflow.simulate import (
    AcquisitionFiles,
    Detector,
    Disturbance,
    SimulatedAcquisition,
    simulate_acquisition,
    stage_positions,
    write_acquisition,
)

SHEET_COLUMNS = tuple(column.name for column in COLUMNS)

_EXAMPLE = """\
example:
  python scripts/draw_phantom.py vessels --shape 48 80 80 --seed 7 --out vessels.ome.tif
  python scripts/simulate_acquisition.py vessels.ome.tif --beam box:6um --step 6 \\
      --voxel-size 1 1 1 --photons 300 --out plan --name vessels-box6 --ground-truth

The volume is divided by its peak, so that its brightest voxel has brightness 1; what the camera
adds without light must be taken off first, by --volume-offset.
"""


def main(
    volume_path: Path,
    beam: str,
    step_um: float,
    voxel_size_um: Sequence[float],
    detector: Detector,
    disturbance: Disturbance,
    seed: int,
    out: Path,
    name: str,
    with_ground_truth: bool = False,
    volume_offset: float = 0.0,
    lateral_psf: str | None = None,
) -> str:
    """Simulate and write an acquisition, and describe it.

    Parameters
    ----------
    volume_path : pathlib.Path
        TIFF with the axes (Z, Y, X).
    beam : str
        Model or CSV as in the sheet's column ``beam_profile``.
    step_um : float
        Distance of the stage positions.
    voxel_size_um : sequence of float
        (z, y, x) in micrometres.
    detector : Detector
    disturbance : Disturbance
    seed : int
        Of the noise and the disturbance.
    out : pathlib.Path
        Folder to write to.
    name : str
        Name of the sample and stem of the files.
    with_ground_truth : bool
        Also write the volume in noise-free counts.
    volume_offset : float
        Value of the volume that stands for no light.
    lateral_psf : str, optional
        As in the sheet's column ``lateral_psf``; none by default.

    Returns
    -------
    str
        What was simulated, in words, and the row for the sample sheet.

    Raises
    ------
    ValueError
        An argument is not valid.
    OSError
        A file cannot be read or written.
    """
    volume = read_volume(volume_path, volume_offset)
    profile = parse_beam_profile(beam)
    positions = stage_positions(len(volume), voxel_size_um[0], profile, step_um)
    psf = None
    if lateral_psf is not None:
        # Light travels further than a reconstruction accounts for: as far as the image is wide.
        psf = read_lateral_psf(lateral_psf, beam, voxel_size_um[1:], max(volume.shape[1:]))
    acquisition = simulate_acquisition(
        volume,
        profile,
        positions,
        voxel_size_um,
        detector,
        disturbance,
        seed,
        lateral_kernel=None if psf is None else psf.kernel,
    )
    files = write_acquisition(
        out,
        name,
        acquisition,
        profile,
        voxel_size_um,
        detector,
        ground_truth=volume if with_ground_truth else None,
    )
    # The beam's own model is not in the CSV that stands for it in the sheet.
    shown = "" if psf is None else absolute_spec(psf.source)
    row = sheet_row(name, files, voxel_size_um, detector, lateral_psf=shown)
    return "\n".join(
        [
            *describe(acquisition, profile, step_um, detector),
            *([] if psf is None else describe_blur(psf)),
            "",
            "To reconstruct it, paste this into config/samples.tsv:",
            "\t".join(SHEET_COLUMNS),
            "\t".join(row[column] for column in SHEET_COLUMNS),
        ]
    )


def read_volume(path: Path, offset: float = 0.0) -> np.ndarray:
    """Read a TIFF volume (Z, Y, X) as relative brightness: offset subtracted, peak 1.

    Parameters
    ----------
    path : pathlib.Path
    offset : float
        Value that stands for no light; what is below becomes 0.

    Raises
    ------
    ValueError
        The file is not a TIFF with three axes, or holds no light above the offset.
    OSError
        The file cannot be read.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist; give the path of a TIFF volume")
    try:
        with tifffile.TiffFile(path) as tif:
            refuse_inverted(tif.pages.first, path)
            volume = tif.asarray()
    except tifffile.TiffFileError as error:
        raise ValueError(f"{path} is not a TIFF file ({error}); save the volume as TIFF") from error
    if volume.ndim != 3:
        raise ValueError(
            f"{path} has the shape {volume.shape}; save one channel and one time point "
            f"with the axes (Z, Y, X)"
        )
    volume = volume.astype(np.float32) - np.float32(offset)
    peak = volume.max()
    if not (np.isfinite(volume).all() and peak > 0):
        raise ValueError(
            f"{path} has no finite brightness above {offset:g}; check the volume and its offset"
        )
    return np.clip(volume / peak, 0, 1)


def describe(
    acquisition: SimulatedAcquisition, profile: AxialProfile, step_um: float, detector: Detector
) -> list[str]:
    """Return sentences about what an acquisition costs and sees."""
    n_projections, n_slices = len(acquisition.positions_um), len(acquisition.seen)
    photons = acquisition.photons
    saturated = np.mean(acquisition.counts >= detector.saturation)
    unseen = np.flatnonzero(~acquisition.seen)
    lines = [
        f"{_amount(n_projections, 'projection')} instead of {_amount(n_slices, 'slice')}: "
        f"{n_slices / n_projections:.1f} times as fast, if an image takes as long as a slice.",
        f"The beam {profile.source} is {profile.extent_um:.4g} um long "
        f"({profile.fwhm_um:.4g} um at half maximum) and moves {step_um:g} um per projection, "
        f"from {acquisition.positions_um[0]:g} to {acquisition.positions_um[-1]:g} um.",
        f"A pixel receives {photons.mean():.1f} photons on average and {photons.max():.0f} "
        f"at the brightest spot.",
        f"{100 * saturated:.2g} % of the pixels are saturated at {detector.saturation} counts.",
    ]
    if unseen.size:
        lines.append(
            f"{unseen.size} of {_amount(n_slices, 'slice')} are in no projection and will be "
            f"guessed: {_ranges(unseen)}."
        )
    else:
        lines.append("Every slice is in at least one projection.")
    return lines


def describe_blur(psf: LateralPsf) -> list[str]:
    """Return a sentence about the lateral blur."""
    peak = 100 * psf.kernel.max()
    size = " x ".join(map(str, psf.kernel.shape))
    return [
        f"The lateral blur {psf.source} covers {size} pixels, and {peak:.0f} % of its light fall "
        f"into the central one."
    ]


def sheet_row(
    name: str,
    files: AcquisitionFiles,
    voxel_size_um: Sequence[float],
    detector: Detector,
    relative_to: Path | None = None,
    lateral_psf: str = "",
) -> dict[str, str]:
    """Return the row of a sample sheet, paths relative to the folder of the sheet or absolute."""

    def shown(path: Path | None) -> str:
        if path is None:
            return ""
        if relative_to is None:
            return path.resolve().as_posix()
        return Path(os.path.relpath(path, relative_to)).as_posix()

    z, y, x = (f"{size:g}" for size in voxel_size_um)
    return dict.fromkeys(SHEET_COLUMNS, "") | {
        "sample": name,
        "acquisition": shown(files.acquisition),
        "stage_positions": shown(files.stage_positions),
        "beam_profile": shown(files.beam_profile),
        "voxel_size_z_um": z,
        "voxel_size_y_um": y,
        "voxel_size_x_um": x,
        "ground_truth": shown(files.ground_truth),
        "role": "test",
        "offset": f"{detector.offset:g}",
        "gain": f"{detector.gain:g}",
        "lateral_psf": lateral_psf,
        "simulated": "yes" if files.acquisition and files.ground_truth else "",
    }


def _amount(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _ranges(indices: np.ndarray) -> str:
    """Write sorted indices as ``6-7, 14-15``."""
    runs = np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1)
    return ", ".join(f"{r[0]}" if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = command_parser(__doc__, _EXAMPLE)
    add = parser.add_argument
    add("volume", type=Path, metavar="VOLUME.tif", help="TIFF with the axes Z, Y, X")
    add("--beam", required=True, help="as in the sheet: box:6um, bessel:NA=..., or a file")
    add("--lateral-psf", metavar="PSF", help="beam, gaussian:0.6um, or a TIFF (default none)")
    add("--step", type=float, required=True, metavar="UM", help="stage step in micrometres")
    add(
        "--voxel-size",
        nargs=3,
        type=float,
        required=True,
        metavar=("Z", "Y", "X"),
        help="of the volume, in micrometres",
    )
    add("--volume-offset", type=float, default=0.0, help="its value without light (default 0)")
    detector = Detector()
    add(
        "--photons",
        type=float,
        default=detector.photons,
        help=f"per pixel where the beam sees brightness 1 (default {detector.photons:g})",
    )
    add(
        "--gain",
        type=float,
        default=detector.gain,
        help=f"counts per photon (default {detector.gain:g})",
    )
    add(
        "--offset",
        type=float,
        default=detector.offset,
        help=f"counts without light (default {detector.offset:g})",
    )
    add(
        "--read-noise",
        type=float,
        default=detector.read_noise,
        help=f"standard deviation in counts (default {detector.read_noise:g})",
    )
    add(
        "--bit-depth",
        type=int,
        default=detector.bit_depth,
        help=f"of the detector, 1 to 16 (default {detector.bit_depth})",
    )
    add("--drift", type=float, default=0.0, metavar="UM", help="lateral, per projection")
    add("--bleaching", type=float, default=0.0, metavar="SHARE", help="lost by the end, 0 to 1")
    add("--hot-pixels", type=float, default=0.0, metavar="SHARE", help="of all pixels, 0 to 1")
    add(
        "--jitter", type=float, default=0.0, metavar="UM", help="lateral, each projection by itself"
    )
    add("--laser", type=float, default=0.0, metavar="SHARE", help="its fluctuation, 0 to 1")
    add("--lines", type=float, default=0.0, metavar="SHARE", help="flicker of lines, 0 to 1")
    add("--scan-phase", type=float, default=0.0, metavar="PIXELS", help="of odd lines, along x")
    add(
        "--attenuation",
        type=float,
        default=float("inf"),
        metavar="UM",
        help="depth over which brightness falls to 1/e (default none), negative for falling z",
    )
    add("--seed", type=int, default=0, help="of the noise (default 0)")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    add("--name", required=True, help="sample name, and stem of the files")
    add("--ground-truth", action="store_true", help="also write the volume in noise-free counts")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    args = parse_arguments()
    with errors_in_a_line():
        print(
            main(
                args.volume,
                args.beam,
                args.step,
                args.voxel_size,
                Detector(args.photons, args.gain, args.offset, args.read_noise, args.bit_depth),
                Disturbance(
                    drift_um=args.drift,
                    bleaching=args.bleaching,
                    hot_pixels=args.hot_pixels,
                    jitter_um=args.jitter,
                    laser=args.laser,
                    lines=args.lines,
                    scan_phase=args.scan_phase,
                    attenuation_um=args.attenuation,
                ),
                args.seed,
                args.out,
                args.name,
                args.ground_truth,
                args.volume_offset,
                args.lateral_psf,
            )
        )

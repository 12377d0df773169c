"""Turn a raw stack into the canonical projection store.

Counts become photons where offset and gain are known, and what is wrong with the pixels is masked
or corrected (`besselflow.corrections`). Projections are sorted by stage position.
The output grid is the ground truth's where there is one, with z = 0 at its first slice; else it
holds every slice that any projection sees.
"""

import math
from pathlib import Path

import dask.array as da
import numpy as np

from besselflow.acquisition import Acquisition, Frames, open_acquisition
from besselflow.beam import LateralPsf, parse_beam_profile, read_lateral_psf
from besselflow.config import Config, Corrections, load_config
from besselflow.corrections import Stated, intensity_scale, resolve_detector
from besselflow.corrections.estimated_fields import read_estimates
from besselflow.corrections.flat_field import ChosenField
from besselflow.corrections.pixels import correct_pixels
from besselflow.corrections.whole import correct_whole
from besselflow.errors import InputError
from besselflow.field_of_view import FieldOfView
from besselflow.job import logger, run_script
from besselflow.preflight import examine_subsample, read_subsample, require_admission
from besselflow.projection import AxialGrid
from besselflow.slice_spacing import with_spacing
from besselflow.stated import positions_of
from besselflow.store import Projections, write_projections

_PIXELS_FOR_STATISTICS = 4_000_000
_MUCH_OUTSIDE = 0.05


def main(
    acquisition: Path,
    stage_positions: Path | None,
    ground_truth: Path | None,
    beam_profile: str,
    voxel_size_um: tuple[float | None, float, float],
    offset: Stated,
    gain: Stated,
    sample: str,
    projections_path: Path,
    lateral_psf: str | None = None,
    halo: int = 24,
    frames: Frames = "average",
    overrule: bool = False,
    corrections: Corrections | None = None,
    config: Config | None = None,
    flat_fields: Path | None = None,
) -> None:
    """Write the projection store.

    Parameters
    ----------
    acquisition : path
        File or folder of any known format.
    stage_positions : path or None
        Stage CSV; None where the acquisition states the positions.
    ground_truth : path or None
        Stack of slices; only its number of slices is read.
    beam_profile : str
        Model or CSV path.
    voxel_size_um : tuple of float
        (z, y, x); where z is None, the slices have a default distance.
    offset, gain : float, ``auto`` or None
        Detector offset in counts, and counts per photon.
    sample : str
        Name of the sample.
    projections_path : path
        Store to write.
    lateral_psf : str or None
        ``beam``, a model, or the path of a TIFF; None where the beam blurs nothing laterally.
    halo : int
        Pixels that the lateral kernel may reach to each side.
    frames : str
        ``average`` or ``time``: what becomes of frames that were repeated at one position.
    overrule : bool
        Whether the stage CSV counts where the acquisition states other positions.
    corrections : Corrections or None
        What to correct; None for the defaults.
    config : Config or None
        Of the run, where samples may be left out for what the preflight finds
        (``preflight.stop_at``); None where all are taken.
    flat_fields : path or None
        Folder with the flat fields that the run estimated, where it did.

    Raises
    ------
    InputError
        The acquisition can't be read, or the sample is left out.
    """
    if config is not None and config.preflight.stop_at != "never":
        subsample = read_subsample(
            acquisition,
            stage_positions,
            ground_truth,
            beam_profile,
            voxel_size_um,
            offset,
            gain,
            lateral_psf,
            config.tiling.halo,
            frames,
            overrule,
            config.preflight,
            config.corrections.given_flat_field,
        )
        found = examine_subsample(subsample, sample, config)
        require_admission(found, config.preflight.stop_at)
    stack = open_acquisition(acquisition, frames)
    announce_acquisition(stack)
    stage_positions = Path(stage_positions) if stage_positions else None
    positions = positions_of(stack, stage_positions, overrule)
    profile = parse_beam_profile(beam_profile)
    by_default = voxel_size_um[0] is None
    voxel_size_um = with_spacing(voxel_size_um, positions)
    if by_default:
        logger.info(
            "slices of %g um, by default: the pixels are %g x %g um, and the stage steps by %g um",
            *voxel_size_um,
            np.median(np.diff(np.sort(positions))),
        )
    order = np.argsort(positions)
    counts = stack.data[:, :, order]
    require_finite(counts)
    corrections = corrections or Corrections()
    detector = resolve_detector(counts, offset, gain, acquisition)
    flat_field = None
    if flat_fields is not None:
        view = FieldOfView(counts.shape[1], counts.shape[3:], tuple(voxel_size_um[1:]))
        flat_field = choose_field(flat_fields, sample, view, detector.offset is not None)
    corrected = correct_pixels(counts, detector.offset, detector.gain, corrections, flat_field)
    intensity = corrected.intensity
    unit = "photons" if gain else "counts"
    if ground_truth is not None:
        slices = open_acquisition(ground_truth).data.shape[2]
        grid = AxialGrid(0.0, voxel_size_um[0], slices)
    else:
        grid = AxialGrid.covering(profile, positions, voxel_size_um[0])
    attributes = {
        "sample": sample,
        "spacing_by_default": by_default,
        "acquisition": stack.provenance(),
        "corrections": detector.record | corrected.record,
    }
    kernel = None
    if lateral_psf is not None:
        psf = read_lateral_psf(lateral_psf, beam_profile, tuple(voxel_size_um[1:]), halo)
        kernel = psf.kernel
        attributes["lateral_psf"] = {"source": psf.source, "outside": psf.outside}
        announce(psf, halo)
    projections = Projections(
        data=intensity,
        positions_um=positions[order],
        profile=profile,
        grid=grid,
        pixel_size_um=tuple(voxel_size_um[1:]),
        unit=unit,
        attributes=attributes,
        lateral_kernel=kernel,
        masked=corrected.masked,
        saturated=corrected.saturated,
        pictures=corrected.pictures,
    )
    projections = correct_whole(projections, order, corrections, detector.offset is not None)
    projections.attributes.update(describe(counts, projections.data))
    logger.info(
        "%d projections of %d x %d pixels, %d slices to reconstruct, intensity in %s",
        *intensity.shape[2:],
        grid.n_slices,
        unit,
    )
    unseen = len(projections.unseen_slices)
    if unseen:
        logger.warning("%d of %d slices are seen by no projection", unseen, grid.n_slices)
    write_projections(projections_path, projections)


def announce_acquisition(stack: Acquisition) -> None:
    """Log the format, and what was read from where."""
    times, channels = stack.data.shape[:2]
    logger.info("%s: %d time points, %d channels", stack.format, times, channels)
    for what, source in stack.sources.items():
        logger.info("%s: %s", what, source)
    for note in stack.notes:
        logger.info("%s", note)


def choose_field(folder: Path, sample: str, view: FieldOfView, offset_known: bool) -> ChosenField:
    """Return what a sample is divided by, of all that was estimated, and log why nothing is."""
    found = read_estimates(folder).choose(sample, view, offset_known)
    if found.path is None:
        logger.info("nothing is divided by a flat field: %s", found.record["why_not"])
    return found


def announce(psf: LateralPsf, halo: int) -> None:
    """Log the size of the lateral kernel, and warn where it leaves out much light."""
    logger.info("lateral blur of %d x %d pixels, from %s", *psf.kernel.shape, psf.source)
    if psf.outside > _MUCH_OUTSIDE:
        logger.warning(
            "%.0f %% of the light of the lateral blur lie more than %d pixels from the beam and "
            "are not accounted for; a larger tiling.halo takes in more of them",
            100 * psf.outside,
            halo,
        )


def require_finite(counts: da.Array) -> None:
    """Refuse an acquisition with a pixel that is not a finite number.

    Raises
    ------
    InputError
        There is one.
    """
    if counts.dtype.kind == "f" and not bool(da.isfinite(counts).all().compute()):
        raise InputError(
            "the acquisition holds pixels that are not finite numbers; "
            "export it again as integers, or replace them"
        )


def describe(counts: da.Array, intensity: da.Array) -> dict[str, object]:
    """Measure what later stages need to know of the intensities.

    Parameters
    ----------
    counts, intensity : dask.array.Array, shape (T, C, P, Y, X)
        Raw and corrected.

    Returns
    -------
    dict
        ``scale`` (T lists of C values): the 99.9th percentile; ``saturated_fraction``: share of
        pixels at the largest value of the file's type (0 for floats).
    """
    times, channels, *image = intensity.shape
    stride = max(1, math.isqrt(math.prod(image) // _PIXELS_FOR_STATISTICS))
    scale = []
    for t in range(times):
        parts = [np.asarray(intensity[t, c, :, ::stride, ::stride]) for c in range(channels)]
        scale.append([intensity_scale(part) for part in parts])
    saturated = 0.0
    if counts.dtype.kind in "ui":
        saturated = float((counts == np.iinfo(counts.dtype).max).mean().compute())
    return {"scale": scale, "saturated_fraction": saturated}


if __name__ == "__main__":
    snakemake = globals()["snakemake"]
    run_script(
        snakemake,
        main,
        acquisition=snakemake.input.acquisition,
        stage_positions=snakemake.input.get("stage_positions") or None,
        ground_truth=snakemake.input.get("ground_truth") or None,
        **snakemake.params.beam,
        **snakemake.params.settings,
        **snakemake.params.reading,
        sample=snakemake.wildcards.sample,
        projections_path=snakemake.output.projections,
        corrections=Corrections(**snakemake.params.corrections),
        # Not a parameter of the rule: another threshold repeats no finished stage.
        config=load_config(snakemake.config),
        flat_fields=snakemake.input.get("flat_fields"),
    )

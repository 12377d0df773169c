"""Judge every method of a sample without ground truth.

Each volume is imaged again through the beam and compared with the measured projections, in units of
the noise that the spectral Gaussian process found in them; it is split into what the projections
determine and what the method inferred; and what it would have predicted of withheld projections is
compared with what they show.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from besselflow.config import Tiling
from besselflow.held_out import COLUMNS, FOLDED, WITHHELD, prediction_errors, rank_predictions
from besselflow.job import logger, run_script
from besselflow.metrics import METRIC_COLUMNS
from besselflow.store import (
    Projections,
    atomic_path,
    column_edge,
    open_projections,
    open_units,
    open_volume,
    write_tsv,
    write_volume,
)
from besselflow.tiling import blend_units, list_units
from besselflow.validation import Examination, Noise, determined_map, examine

PROJECTION_COLUMNS = ["sample", "method", "t", "c", "projection", "z_um", "chi2"]
DEPTH_COLUMNS = ["sample", "method", "t", "c", "z_um", "seen", "determined"]


@dataclass(frozen=True)
class HeldOut:
    """What was reconstructed from the thinned acquisition.

    Attributes
    ----------
    projections : path
        Thinned projection store.
    units : dict
        Method -> its unit store.
    tiling : Tiling
        How the thinned acquisition was cut.
    """

    projections: Path
    units: dict[str, Path]
    tiling: Tiling


@dataclass(frozen=True)
class Outputs:
    """Files to write.

    Attributes
    ----------
    metrics : path
        ``sample method metric value``.
    projections : path
        chi2 of every projection (``sample method t c projection z_um chi2``); empty where the noise
        is not known.
    depth : path
        Share of every slice that is determined (``sample method t c z_um seen determined``).
    maps : path
        ``.npz`` with a lateral map of chi2 per method, shape (C, y, x), and their ``bin_pixels``;
        no maps where the noise is not known.
    determined : path
        OME-Zarr volume: the share of each voxel of the final volume that is determined.
    held_out : path
        Errors of the predictions; empty where no projection was withheld.
    """

    metrics: Path
    projections: Path
    depth: Path
    maps: Path
    determined: Path
    held_out: Path


def main(
    volumes: dict[str, Path],
    final: str,
    projections: Path,
    held_out: HeldOut | None,
    sample: str,
    outputs: Outputs,
) -> None:
    """Write all that can be said of one sample without ground truth.

    Parameters
    ----------
    volumes : dict
        Method -> OME-Zarr volume; where `spectral` is among them, the noise is known.
    final : str
        Method of the final volume.
    projections : path
        Projection store.
    held_out : HeldOut or None
        The thinned acquisition; None where no projection was withheld.
    sample : str
        Name of the sample.
    outputs : Outputs
        Files to write.
    """
    measured = open_projections(projections)
    noise = Noise.from_spectral(open_volume(volumes["spectral"])) if "spectral" in volumes else None
    metrics, by_projection, by_slice, maps = {}, [], [], {}
    for method, path in volumes.items():
        found = examine(open_volume(path).data, measured, noise)
        metrics[method] = found.summary()
        by_slice += depth_rows(sample, method, measured, found)
        if found.chi2_map is not None:
            maps |= {method: found.chi2_map, "bin_pixels": found.bin_pixels}
            by_projection += projection_rows(sample, method, measured, found)
    errors = pd.DataFrame(columns=COLUMNS)
    if held_out is not None:
        errors = score_predictions(held_out, measured, noise, sample)
    for each in rank_predictions(errors, FOLDED):
        metrics[each.method]["folded_psnr"] = each.psnr
    for each in rank_predictions(errors, WITHHELD):
        metrics[each.method]["held_out_psnr"] = each.psnr
        if each.chi2 is not None:
            metrics[each.method]["held_out_chi2"] = each.chi2
    for method, values in metrics.items():
        logger.info("%s: %s", method, ", ".join(f"{k} {v:.4g}" for k, v in values.items()))
    write_determined(volumes[final], measured, sample, outputs.determined)
    with atomic_path(outputs.maps) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **maps)
    write_tsv(outputs.projections, pd.DataFrame(by_projection, columns=PROJECTION_COLUMNS))
    write_tsv(outputs.depth, pd.DataFrame(by_slice, columns=DEPTH_COLUMNS))
    write_tsv(outputs.held_out, errors)
    rows = [(sample, m, name, v) for m, values in metrics.items() for name, v in values.items()]
    write_tsv(outputs.metrics, pd.DataFrame(rows, columns=METRIC_COLUMNS))


def projection_rows(
    sample: str, method: str, measured: Projections, found: Examination
) -> list[tuple]:
    """Return the rows of `PROJECTION_COLUMNS` of one method."""
    return [
        (sample, method, t, c, p, measured.positions_um[p], value)
        for (t, c, p), value in np.ndenumerate(found.chi2_by_projection)
    ]


def depth_rows(sample: str, method: str, measured: Projections, found: Examination) -> list[tuple]:
    """Return the rows of `DEPTH_COLUMNS` of one method."""
    total = found.determined + found.inferred
    share = np.divide(found.determined, total, out=np.ones_like(total), where=total > 0)
    z_um, seen = measured.grid.centres_um, measured.operator.seen
    return [
        (sample, method, t, c, z_um[z], seen[z], value)
        for (t, c, z), value in np.ndenumerate(share)
    ]


def score_predictions(
    held_out: HeldOut, measured: Projections, noise: Noise | None, sample: str
) -> pd.DataFrame:
    """Join the units of every method and compare their predictions with what was kept from it."""
    thinned = open_projections(held_out.projections)
    tiling, shape = held_out.tiling, thinned.data.shape
    units = list_units(shape, tiling.tile, tiling.halo)
    shape = (*shape[:2], thinned.grid.n_slices, *shape[3:])
    volumes = {
        method: blend_units(
            open_units([path]).arrays["volume"], units, shape, tiling.halo, column_edge(shape[2])
        )
        for method, path in held_out.units.items()
    }
    return prediction_errors(volumes, thinned, measured, noise, sample)


def write_determined(volume: Path, measured: Projections, sample: str, path: Path) -> None:
    """Write the share of each voxel of a volume that its projections determine."""
    write_volume(
        path,
        determined_map(open_volume(volume).data, measured.operator),
        measured.voxel_size_um,
        (measured.grid.first_um, 0.0, 0.0),
        f"{sample} determined share",
        {"sample": sample, "unit": "share of 1"},
    )


if __name__ == "__main__":
    snakemake = globals()["snakemake"]
    params, sources = snakemake.params, snakemake.input
    thinned = sources.get("held_out_projections")
    run_script(
        snakemake,
        main,
        volumes=dict(zip(params.methods, sources.volumes, strict=True)),
        final=params.final,
        projections=sources.projections,
        held_out=HeldOut(
            thinned,
            dict(zip(params.held_out_methods, sources.held_out_units, strict=True)),
            Tiling(**params.held_out_tiling),
        )
        if thinned
        else None,
        sample=snakemake.wildcards.sample,
        outputs=Outputs(**{name: Path(path) for name, path in snakemake.output.items()}),
    )

"""Small synthetic results folders, as the workflow would leave them, for the tests of reports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import dask.array as da
import numpy as np
from scipy.ndimage import gaussian_filter

from besselflow.beam import box_profile
from besselflow.projection import AxialGrid
from besselflow.report import (
    EvaluationFiles,
    SampleReportInputs,
    ValidationFiles,
    write_sample_report,
)
from besselflow.store import Projections, write_projections, write_volume
from evaluate import Details
from evaluate import main as evaluate
from validate import Outputs
from validate import main as validate

METHODS = ("interpolation", "spectral", "inr", "diffusion")
_NOISE = 2.0
_ERROR = {"interpolation": 9.0, "spectral": 6.0, "inr": 4.0, "diffusion": 2.5}


@dataclass(frozen=True)
class Sizes:
    """Shape of a synthetic sample, and the step of its stage in slices."""

    times: int = 1
    channels: int = 1
    slices: int = 24
    rows: int = 40
    columns: int = 48
    step: float = 6.0
    first: float = 3.0


def write_sample(
    results: Path,
    sample: str,
    has_truth: bool = True,
    has_uncertainty: bool = True,
    sizes: Sizes | None = None,
    row: dict | None = None,
    picture_pixels: int = 320,
    methods: tuple[str, ...] = METHODS,
) -> SampleReportInputs:
    """Write the stores and tables of one sample, and return what its report is made of."""
    sizes = sizes or Sizes()
    rng = np.random.default_rng(len(sample))
    folder, work = results / sample, results / sample / "work"
    shape = (sizes.times, sizes.channels, sizes.slices, sizes.rows, sizes.columns)
    blur = (0, 0, 1.5, 1.5, 1.5)
    tissue = gaussian_filter((rng.random(shape) > 0.996) * 4000.0, blur).astype("float32")
    grid = AxialGrid(0.0, 1.0, sizes.slices)
    positions = np.arange(sizes.first, sizes.slices - 2, sizes.step)
    measured = Projections(
        data=da.zeros((*shape[:2], len(positions), *shape[3:]), dtype="float32"),
        positions_um=positions,
        profile=box_profile(6.0),
        grid=grid,
        pixel_size_um=(0.5, 0.5),
        unit="photons",
    )
    images = measured.operator.forward(tissue)
    images += rng.normal(0, _NOISE, images.shape).astype("float32")
    write_projections(work / "projections.zip", replace_data(measured, images))
    volumes = {}
    for method in methods:
        error = gaussian_filter(rng.normal(0, 1, shape), blur)
        error *= _ERROR[method] / error.std()
        path = folder / "volume.ome.zarr" if method == methods[-1] else work / f"{method}.ome.zarr"
        records = _records(method, sizes.times * sizes.channels)
        _write(path, np.maximum(tissue + error, 0), measured, method, records)
        volumes[method] = path
    truth = work / "truth.ome.zarr" if has_truth else None
    if truth:
        _write(truth, tissue, measured, "truth", [])
    uncertainty = work / "std.ome.zarr" if has_uncertainty else None
    if uncertainty:
        spread = 1.5 + 0.05 * tissue
        _write(uncertainty, spread, measured, "uncertainty", [])
    outputs = validation_outputs(folder)
    validate(volumes, methods[-1], work / "projections.zip", None, sample, outputs)
    inside = folder / "evaluation"
    details = Details(inside / "sweep.tsv", inside / "shells.tsv", inside / "conditions.json")
    evaluate(
        volumes,
        truth,
        work / "projections.zip",
        {methods[-1]: uncertainty} if uncertainty else {},
        7,
        sample,
        folder / "metrics.tsv",
        folder / "slices.tsv",
        outputs.metrics,
        details=details,
    )
    benchmark = work / "fit_inr.tsv"
    benchmark.write_text("s\th:m:s\tmax_rss\tcpu_time\n61.5\t0:01:01\t512.25\t-\n")
    curve = [[step, 3.0 / (1 + step / 50)] for step in range(0, 1500, 25)]
    return SampleReportInputs(
        sample=sample,
        projections=work / "projections.zip",
        volumes=volumes,
        final=methods[-1],
        metrics=folder / "metrics.tsv",
        slices=folder / "slices.tsv",
        truth=truth,
        uncertainty=uncertainty,
        prior_info={
            "trained_on": ["vessels-train", "6 phantoms"],
            "curve": curve,
            "seconds": 93.4,
            "steps": 1500,
        },
        settings={"seed": 0, "methods": list(methods), "inr": {"width": 128}},
        row=row or {"sample": sample, "beam_profile": "box:6um", "ground_truth": ""},
        picture_pixels=picture_pixels,
        benchmarks={"fit_inr": benchmark, "refine": work / "missing.tsv"},
        validation=validation_files(outputs, "No projection was withheld: 4 are too few."),
        evaluation=EvaluationFiles(*map(str, vars(details).values())),
    )


def validation_outputs(folder: Path) -> Outputs:
    """Return the files of the rule `validate` in the folder of a sample."""
    inside = folder / "validation"
    return Outputs(
        metrics=inside / "metrics.tsv",
        projections=inside / "projections.tsv",
        depth=inside / "depth.tsv",
        maps=inside / "residual_maps.npz",
        determined=folder / "determined.ozx",
        held_out=folder / "held_out.tsv",
    )


def validation_files(outputs: Outputs, not_held_out: str | None = None) -> ValidationFiles:
    """Return what the report reads of the files of the rule `validate`."""
    return ValidationFiles(
        outputs.projections,
        outputs.depth,
        outputs.maps,
        outputs.determined,
        outputs.held_out,
        not_held_out,
    )


def write_reported_sample(results: Path, sample: str, **options) -> SampleReportInputs:
    """Write a sample and its page."""
    inputs = write_sample(results, sample, **options)
    write_sample_report(results / sample / "report.html", inputs)
    return inputs


def replace_data(measured: Projections, images: np.ndarray) -> Projections:
    return Projections(**{**vars(measured), "data": da.from_array(images)})


def _write(path, values, measured, method, records):
    write_volume(
        path,
        da.from_array(values.astype("float32")),
        measured.voxel_size_um,
        (measured.grid.first_um, 0.0, 0.0),
        method,
        {"method": method, "unit": measured.unit, "records": records},
    )


def _records(method, places):
    curve = [[step, 40.0 / (1 + step / 30)] for step in range(0, 1500, 25)]
    record = {
        "interpolation": {},
        "spectral": {
            "amplitude": 12.0,
            "length_um": 2.4,
            "smoothness": 2.0,
            "noise_variance": _NOISE**2,
            "mean": 16.0,
        },
        "inr": {"bandwidth_per_um": 0.11, "curve": curve, "seconds": 48.2, "chi2": 0.97},
        "diffusion": {"evaluations": 10, "samples": 4},
    }[method]
    return [record | {"unit": unit} for unit in range(places)]

"""The scripts that judge a sample without ground truth, from withheld projections to the tables."""

import dask.array as da
import numpy as np
import pandas as pd
import pytest

import assemble
import hold_out
import reconstruct_baseline
import validate
from besselflow.beam import box_profile
from besselflow.config import Tiling, Validation
from besselflow.metrics.methods import score_by_sight
from besselflow.phantoms import draw_phantom
from besselflow.projection import AxialGrid
from besselflow.simulate import Detector, simulate_acquisition
from besselflow.store import Projections, open_projections, open_volume, write_projections
from report_samples import validation_outputs

VOXEL = (1.0, 1.0, 1.0)
POSITIONS = np.arange(2.5, 38, 4.0)
METHODS = ("interpolation", "spectral")
TILING = Tiling(tile=20, halo=4)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A simulated acquisition of nine projections after hold_out, reconstruction and validate."""
    folder = tmp_path_factory.mktemp("sample")
    volume = draw_phantom("vessels", (40, 44, 44), 5, VOXEL)
    taken = simulate_acquisition(volume, box_profile(6.0), POSITIONS, VOXEL, Detector(), seed=1)
    projections = Projections(
        data=da.from_array(taken.counts[None, None].astype("float32")),
        positions_um=POSITIONS,
        profile=box_profile(6.0),
        grid=AxialGrid(0.0, 1.0, 40),
        pixel_size_um=(1.0, 1.0),
        unit="counts",
        attributes={"sample": "mouse", "scale": [[100.0]]},
    )
    write_projections(folder / "projections.zip", projections)
    hold_out.main(
        folder / "projections.zip",
        Validation(hold_out=4, region=32),
        folder / "held_out.zip",
    )
    for part in ("projections", "held_out"):
        for method in METHODS:
            reconstruct_baseline.main(
                folder / f"{part}.zip", method, TILING, 0, folder / f"{part}-{method}.zip"
            )
    volumes = {method: folder / f"{method}.ome.zarr" for method in METHODS}
    units = {method: [folder / f"projections-{method}.zip"] for method in METHODS}
    assemble.main(folder / "projections.zip", units, TILING, volumes, {})
    held_out = validate.HeldOut(
        folder / "held_out.zip",
        {method: folder / f"held_out-{method}.zip" for method in METHODS},
        TILING,
    )
    outputs = validation_outputs(folder)
    validate.main(volumes, "spectral", folder / "projections.zip", held_out, "mouse", outputs)
    return folder, outputs


def test_thinned_acquisitions_keep_grid_and_scale(sample):
    thinned = open_projections(sample[0] / "held_out.zip")
    assert thinned.data.shape == (1, 1, 7, 32, 32)
    assert thinned.grid.n_slices == 40 and thinned.attributes["scale"] == [[100.0]]
    assert thinned.attributes["held_out"]["projections"] == [2, 6]


def test_the_better_method_predicts_better(sample):
    metrics = pd.read_csv(sample[1].metrics, sep="\t")
    assert list(metrics.columns) == ["sample", "method", "metric", "value"]
    wide = metrics.pivot(index="method", columns="metric", values="value")
    expected = {"chi2", "structure", "determined", "held_out_psnr", "held_out_chi2"}
    assert set(wide.columns) == expected
    assert wide.loc["spectral", "held_out_psnr"] > wide.loc["interpolation", "held_out_psnr"]
    assert (wide["held_out_chi2"] > 0.9).all()
    assert wide["determined"].between(0, 1).all()


def test_predictions_are_compared_with_what_was_withheld(sample):
    folder, outputs = sample
    table = pd.read_csv(outputs.held_out, sep="\t")
    taken = open_projections(folder / "held_out.zip").attributes["held_out"]
    y, x = slice(*taken["y"]), slice(*taken["x"])
    measured = open_projections(folder / "projections.zip")
    withheld = np.asarray(measured.data)[0, 0, [2, 6], y, x]
    assert table["peak"].unique() == pytest.approx([withheld.max()])
    # Linear interpolation of the neighbours, imaged through the beam again, is close to their mean.
    neighbours = np.asarray(measured.data)[0, 0]
    mean = (neighbours[[1, 5], y, x] + neighbours[[3, 7], y, x]) / 2
    own = table[table["method"] == "interpolation"]
    found = own.groupby("projection")["mse"].mean()
    np.testing.assert_allclose(found, np.mean((mean - withheld) ** 2, axis=(1, 2)), rtol=0.05)


def test_tables_and_maps_cover_all_methods(sample):
    _, outputs = sample
    by_projection = pd.read_csv(outputs.projections, sep="\t")
    assert list(by_projection.columns) == validate.PROJECTION_COLUMNS
    assert len(by_projection) == 2 * 9
    depth = pd.read_csv(outputs.depth, sep="\t")
    assert list(depth.columns) == validate.DEPTH_COLUMNS
    assert len(depth) == 2 * 40 and depth["determined"].between(0, 1).all()
    with np.load(outputs.maps) as maps:
        assert set(maps) == {*METHODS, "bin_pixels"}
        assert all(maps[method].ndim == 3 for method in METHODS)
    determined = open_volume(outputs.determined)
    assert determined.data.shape == (1, 1, 40, 44, 44) and determined.voxel_size_um == VOXEL


def test_without_spectral_and_without_withheld_projections_less_is_said(sample, tmp_path):
    folder, _ = sample
    outputs = validation_outputs(tmp_path)
    volumes = {"interpolation": folder / "interpolation.ome.zarr"}
    validate.main(volumes, "interpolation", folder / "projections.zip", None, "mouse", outputs)
    assert list(pd.read_csv(outputs.metrics, sep="\t")["metric"]) == ["determined"]
    for path in (outputs.projections, outputs.held_out):
        assert pd.read_csv(path, sep="\t").empty
    with np.load(outputs.maps) as maps:
        assert set(maps) == set()


def test_seen_and_unseen_slices_are_scored_apart():
    slices = pd.DataFrame({"z": [1, 2, 3, 1, 2, 3], "psnr": [30.0, 20, 32, 34, 24, 36]})
    found = score_by_sight(slices, np.array([True, True, False, True]))
    assert found == {"psnr_seen": 33.0, "psnr_unseen": 22.0}
    assert score_by_sight(slices, np.ones(4, bool)) == {}

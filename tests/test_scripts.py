"""Runs the script of every rule, one after the other, on tiny acquisitions."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import dask.array as da
import numpy as np
import ome_zarr_models.v05
import pandas as pd
import pytest
import torch
import zarr

import assemble
import evaluate
import refine
import report_cohort
import report_sample
import safeguard
import train_prior
import validate
from besselflow.baselines.interpolation import interpolate
from besselflow.config import METHODS, Config, Tiling
from besselflow.device import compute_precision
from besselflow.diffusion.geometry import Geometry
from besselflow.diffusion.prior import load_prior
from besselflow.diffusion.simulation import SimulatedAcquisition
from besselflow.errors import InputError
from besselflow.lateral import LateralBlur
from besselflow.microdiffusion.images import smooth_neighbours
from besselflow.phantoms import draw_phantom
from besselflow.report import SampleReportInputs
from besselflow.store import open_projections, open_units, open_volume, write_projections
from besselflow.tiling import list_units
from besselflow.validation import Noise
from besselflow.weights import load_weights
from report_samples import validation_outputs
from script_chain import (
    DETECTOR,
    GEOMETRY,
    POSITIONS,
    PRIOR,
    REFINE,
    SEED,
    TILED,
    VOXEL,
    WHOLE,
    Chain,
    Raw,
    acquire,
    photons,
    train_on_a_phantom,
    write_tiff,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return acquire(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    return train_on_a_phantom(tmp_path_factory.mktemp("prior"))


@pytest.fixture(scope="module")
def whole(raw, prior, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return Chain(raw, folder, WHOLE, prior=prior).preprocess().reconstruct(METHODS)


@pytest.fixture(scope="module")
def tiled(raw, prior, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiled")
    return Chain(raw, folder, TILED, prior=prior).preprocess().reconstruct(METHODS)


@pytest.fixture(scope="module")
def reported(whole):
    """Scores and pages of the chain, under the workflow's names."""
    results = whole.folder / "results"
    folder = results / "mouse"
    outputs = validation_outputs(folder)
    validate.main(whole.volumes, "diffusion", whole.projections, None, "mouse", outputs)
    evaluate.main(
        whole.volumes,
        whole.truth_volume,
        whole.projections,
        whole.uncertainty,
        7,
        "mouse",
        folder / "metrics.tsv",
        folder / "slice_metrics.tsv",
        outputs.metrics,
    )
    report_sample.main(
        SampleReportInputs(
            sample="mouse",
            projections=whole.projections,
            volumes=whole.volumes,
            final="diffusion",
            metrics=folder / "metrics.tsv",
            slices=folder / "slice_metrics.tsv",
            truth=whole.truth_volume,
            uncertainty=whole.uncertainty["diffusion"],
            settings=Config().model_dump(exclude={"samples", "results"}),
            row={"beam_profile": "box:6um"},
        ),
        folder / "report.html",
        whole.prior.with_suffix(".json"),
    )
    statuses = report_cohort.list_statuses(
        ["mouse"], {"rat": "rat.tif is truncated; copy it again"}, ["other mouse"]
    )
    report_cohort.main(
        results / "report.html", results / "metrics.tsv", results, statuses, "diffusion"
    )
    return results


def test_saturated_pixels_are_bounds_in_every_stage(raw, prior, tmp_path):
    counts = np.minimum(raw.counts[0, 0], 320)
    write_tiff(tmp_path / "a.tif", counts)
    clipped = Raw(tmp_path / "a.tif", raw.stage, raw.truth, counts, raw.truth_counts)
    chain = Chain(clipped, tmp_path, WHOLE, truth=False, prior=prior).preprocess()
    chain.reconstruct(["spectral", "variational", "richardson_lucy", "inr", "diffusion"])
    measured = open_projections(chain.projections)
    saturated = np.asarray(measured.saturated[0, 0])
    np.testing.assert_array_equal(saturated, counts[::-1] == 320)
    bounds = np.asarray(measured.data[0, 0])[saturated]
    np.testing.assert_array_equal(bounds, 110)
    predicted = measured.operator.forward(chain.volume("spectral")[0, 0])[saturated]
    assert predicted.mean() > 115 and all(
        np.isfinite(chain.volume(method)).all() for method in chain.volumes
    )


@pytest.mark.parametrize("method", METHODS)
def test_volumes_are_valid_and_on_the_grid(tiled, method):
    path = tiled.volumes[method]
    ome_zarr_models.v05.Image.from_zarr(zarr.open_group(str(path), mode="r"))
    volume = open_volume(path)
    assert volume.data.shape == (1, 1, 18, 24, 24)
    assert volume.voxel_size_um == VOXEL and volume.origin_um == (0, 0, 0)
    assert np.isfinite(np.asarray(volume.data)).all()
    assert volume.attributes["unit"] == "photons" and volume.attributes["method"] == method
    assert volume.attributes["unseen_slices"] == []
    records = volume.attributes["records"]
    assert [record["unit"] for record in records] == [0, 1, 2, 3]
    assert all(record["seconds"] > 0 for record in records)


def test_interpolation_is_that_of_the_library(whole, raw):
    expected = interpolate(photons(raw.counts[0, 0, ::-1]), POSITIONS, np.arange(18.0))
    np.testing.assert_allclose(whole.volume("interpolation")[0, 0], expected, rtol=1e-6)


def test_tiles_do_not_change_interpolation(whole, tiled):
    np.testing.assert_allclose(
        tiled.volume("interpolation"), whole.volume("interpolation"), rtol=1e-5
    )


def fitted_noise_variance(chain):
    return float(Noise.from_spectral(open_volume(chain.volumes["spectral"])).variance.mean())


def test_tiles_change_spectral_less_than_the_noise(whole, tiled):
    noise = fitted_noise_variance(tiled) ** 0.5
    difference = tiled.volume("spectral") - whole.volume("spectral")
    assert np.sqrt(np.mean(difference**2)) < noise
    models = [
        {key: r[key] for key in ("amplitude", "length_um", "noise_variance")}
        for r in open_volume(tiled.volumes["spectral"]).attributes["records"]
    ]
    assert all(model == models[0] for model in models)


def test_one_model_is_fitted_to_all_tiles(tiled):
    measured = open_projections(tiled.projections)
    units = list_units(measured.data.shape, TILED.tile, TILED.halo)
    mean = np.mean([measured.unit_data(unit) for unit in units])
    for record in open_volume(tiled.volumes["spectral"]).attributes["records"]:
        assert record["mean"] == pytest.approx(mean, rel=1e-5)


def test_methods_explain_the_data(whole):
    measured = open_projections(whole.projections)
    variance = fitted_noise_variance(whole)
    chi2 = {}
    for method in ("spectral", "diffusion"):
        residual = measured.operator.forward(whole.volume(method)) - np.asarray(measured.data)
        chi2[method] = np.mean(residual**2) / variance
        assert chi2[method] < 1.3
    assert whole.volume("inr").min() >= 0


@pytest.mark.parametrize("method", ["spectral", "diffusion"])
def test_uncertainty_is_positive_where_samples_differ(whole, tiled, method):
    for chain in (whole, tiled):
        std = np.asarray(open_volume(chain.uncertainty[method]).data)
        assert std.shape == (1, 1, 18, 24, 24)
        assert std.min() >= 0 and std.mean() > 0


def test_methods_with_an_uncertainty_get_their_coverage(reported):
    scores = pd.read_csv(reported / "mouse" / "metrics.tsv", sep="\t")
    for metric in ("coverage_50", "coverage_90"):
        covered = scores[scores["metric"] == metric].set_index("method")["value"]
        assert set(covered.index) == {"spectral", "diffusion"}
        assert 0.3 < covered["spectral"] <= 1


def blurred(measured, kernel):
    """The same volume, imaged by a beam with side lobes."""
    blur = LateralBlur(kernel)
    return replace(
        measured, data=da.from_array(blur.apply(np.asarray(measured.data))), lateral_kernel=kernel
    )


def test_methods_explain_the_data_of_a_beam_with_side_lobes(raw, tmp_path):
    chain = Chain(raw, tmp_path, TILED).preprocess()
    sharp = open_projections(chain.projections)
    kernel = np.outer([0.1, 0.2, 0.4, 0.2, 0.1], [0.1, 0.2, 0.4, 0.2, 0.1])
    chain.projections = tmp_path / "blurred.zarr"
    write_projections(chain.projections, blurred(sharp, kernel))
    measured = open_projections(chain.projections)
    chain.reconstruct(["spectral", "variational", "richardson_lucy"])
    scale = np.asarray(measured.data).std()
    for method in chain.volumes:
        residual = measured.operator.forward(chain.volume(method)) - np.asarray(measured.data)
        assert residual.std() < 0.2 * scale


def test_all_tiles_share_the_bregman_rounds(raw, tmp_path):
    chain = Chain(raw, tmp_path, TILED).preprocess().reconstruct(["spectral", "variational"])
    records = open_units(chain.units("variational")).records
    assert len(records) > 1
    first = next(iter(records.values()))
    assert first["weight"] == 0.4 and first["rounds"] >= 1
    assert first["prediction_errors"][str(first["rounds"])] == min(
        first["prediction_errors"].values()
    )
    for record in records.values():
        assert record["rounds"] == first["rounds"] and record["weight"] == first["weight"]
        assert record["gap"] >= 0 and record["chi2"] > 0
        assert record["rounds"] <= record["iterations"] <= 20 * record["rounds"]


def test_side_lobes_that_reach_beyond_the_halo_are_refused(raw, tmp_path):
    chain = Chain(raw, tmp_path, TILED).preprocess()
    measured = open_projections(chain.projections)
    chain.projections = tmp_path / "blurred.zarr"
    write_projections(chain.projections, blurred(measured, np.full((7, 7), 1 / 49)))
    with pytest.raises(InputError, match=r"reaches 3 pixels.*tiling.halo to at least 4"):
        chain.reconstruct(["spectral"])


def test_volumes_record_the_slices_that_no_projection_saw(raw, tmp_path):
    (tmp_path / "a.csv").write_text("projection,z_um\n0,2.5\n1,8.5\n2,29.5\n")
    truth = np.concatenate([raw.truth_counts[0, 0]] * 2)
    write_tiff(tmp_path / "truth.tif", truth)
    sparse = Raw(raw.acquisition, tmp_path / "a.csv", tmp_path / "truth.tif", raw.counts, truth)
    chain = Chain(sparse, tmp_path, WHOLE).preprocess().reconstruct(["interpolation"])
    expected = [*range(12, 27), *range(33, 36)]
    assert open_volume(chain.volumes["interpolation"]).unseen_slices == expected


def test_shards_do_not_change_any_volume(raw, prior, tiled, tmp_path):
    sharded = Chain(raw, tmp_path, Tiling(tile=10, halo=3, shards=3), prior=prior)
    sharded.preprocess().reconstruct(METHODS)
    assert [len(open_units([path]).records) for path in sharded.units("inr")] == [1, 2, 1]
    for method in METHODS:
        np.testing.assert_array_equal(sharded.volume(method), tiled.volume(method))
    for method in tiled.uncertainty:
        std = [np.asarray(open_volume(c.uncertainty[method]).data) for c in (sharded, tiled)]
        np.testing.assert_array_equal(*std)


def test_more_shards_than_units(raw, whole, tmp_path):
    chain = Chain(raw, tmp_path, Tiling(tile=64, halo=8, shards=2)).preprocess()
    chain.reconstruct(("interpolation", "spectral", "inr"))
    for method in chain.volumes:
        np.testing.assert_array_equal(chain.volume(method), whole.volume(method))


def test_finished_fit_leaves_no_checkpoints(whole, prior):
    assert {path.name for path in (whole.folder / "units").iterdir()} == {
        f"{method}-0.zip" for method in (*METHODS, "prior")
    }
    found = {path.relative_to(prior.parent).as_posix() for path in prior.parent.rglob("*")}
    simulated = {"abc", "abc/train-t", "abc/train-t/other mouse.npz"}
    weights = {"abc.safetensors", "abc.json", "abc.trained.pt"}
    assert found == {"t.tif"} | weights | simulated


def test_another_sampler_calibrates_the_prior_anew_and_trains_nothing(tmp_path, caplog):
    first = train_on_a_phantom(tmp_path)
    before = load_weights(first)
    first.unlink()
    caplog.clear()
    with caplog.at_level(logging.INFO, "besselflow"):
        train_prior.main(
            [first.with_suffix("") / "train-t"],
            GEOMETRY.as_dict(),
            PRIOR.model_copy(update={"compile": False, "checkpoint_seconds": 5.0}),
            REFINE.model_copy(update={"samples": 3}),
            SEED,
            1,
            first,
            first.with_suffix(".json"),
        )
    assert not any(text.startswith("training ") and "%" in text for text in caplog.messages)
    after = load_weights(first)
    assert before[0].keys() == after[0].keys()
    for name, weights in before[0].items():
        np.testing.assert_array_equal(after[0][name], weights)
    assert before[1]["calibration"] != after[1]["calibration"]
    facts = [json.loads(each[1]["info"]) for each in (before, after)]
    assert facts[0]["curve"] == facts[1]["curve"] and facts[0]["seconds"] == facts[1]["seconds"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_samples_are_drawn_in_the_precision_asked_for(whole, prior, tmp_path, precision):
    (spectral,), (inr,) = whole.units("spectral"), whole.units("inr")
    units = tmp_path / "prior-0.zip"
    inputs = (whole.projections, spectral, inr, prior, REFINE, WHOLE, SEED, 0, 1, units)
    refine.main(*inputs, precision=precision)
    found = open_units([units]).arrays["volume"][0].compute()
    before = open_units(whole.units("prior")).arrays["volume"][0].compute()
    # The default of a processor that has no instructions for bfloat16 is float32.
    default = compute_precision("auto", torch.device("cpu")) == getattr(torch, precision)
    assert np.array_equal(found, before) == default
    np.testing.assert_allclose(found, before, rtol=0.05, atol=0.05 * before.max())


def test_published_scheme_stays_close_to_the_smoothed_inr(whole):
    assert {path.name for path in whole.folder.glob("*.safetensors*")} == {
        "microdiffusion.safetensors"
    }
    assert not list(whole.folder.glob("*.pt"))
    (record,) = open_volume(whole.volumes["microdiffusion"]).attributes["records"]
    assert record["trained_on"] == 3 and record["training_steps"] == 4
    assert len(record["curve"]) == 4 and record["evaluations"] == 12
    found = whole.volume("microdiffusion")[0, 0]
    scale = open_projections(whole.projections).attributes["scale"][0][0]
    smooth = smooth_neighbours(whole.volume("inr")[0, 0])
    assert 0 < np.sqrt(np.mean((found - smooth) ** 2)) < 0.1 * scale
    assert found.min() >= 0


def test_unit_stores_are_told_apart_by_method():
    paths = [Path(f"{method}-{shard}") for method in METHODS for shard in range(2)]
    stores = assemble.stores_by_method(list(METHODS), paths)
    assert stores == {m: [Path(f"{m}-0"), Path(f"{m}-1")] for m in METHODS}


def test_prior_tells_what_it_was_trained_on(prior):
    info = json.loads(prior.with_suffix(".json").read_text())
    assert info["trained_on"] == ["other mouse"]
    assert info["steps"] == PRIOR.steps
    assert Geometry.from_dict(info["geometry"]) == GEOMETRY
    loaded = load_prior(prior, torch.device("cpu"))
    assert loaded.info == info and loaded.calibration is not None
    assert loaded.denoiser.channels == PRIOR.channels


def test_prior_of_any_beam_says_so(prior, tmp_path):
    simulated = prior.parent / "abc" / "train-t"
    outputs = tmp_path / "p.safetensors", tmp_path / "p.json"
    short = PRIOR.model_copy(update={"steps": 1})
    train_prior.main([simulated], None, short, REFINE, SEED, 1, *outputs)
    assert json.loads(outputs[1].read_text())["geometry"] == "any"


def test_training_acquisition_is_one_of_the_training_stack(prior):
    (path,) = (prior.parent / "abc" / "train-t").iterdir()
    found = SimulatedAcquisition.load(path)
    volume = draw_phantom("vessels", (18, 24, 24), 99, VOXEL)
    counts = DETECTOR.noise_free_counts(volume).astype(float) - 100
    factor = found.truth.max() / counts.max()
    np.testing.assert_allclose(found.truth, np.maximum(counts, 0) * factor, atol=2e-3)


def test_trust_says_how_far_the_prior_is_followed(whole, tmp_path):
    path = lambda name: whole.units(name)[0]  # noqa: E731
    sources = safeguard.Sources(path("prior"), {"inr": path("inr")}, path("spectral"))
    volumes = {name: open_units([path(name)]).arrays["volume"][0] for name in ("prior", "inr")}
    for trust, share in ((1, 1), (0.25, 0.25), (0, 0), ("auto", 0)):
        settings = REFINE.model_copy(update={"trust": trust})
        units = tmp_path / f"{trust}.zarr"
        inputs = (whole.projections, sources, whole.projections, None, settings, WHOLE, 0)
        safeguard.main(*inputs, units)
        found = open_units([units])
        expected = share * volumes["prior"] + (1 - share) * volumes["inr"]
        np.testing.assert_allclose(found.arrays["volume"][0], expected, rtol=1e-4, atol=1e-4)
        assert found.records[0]["weights"] == {"prior": share, "inr": 1 - share}
        assert not found.records[0]["checked"]
    assert not np.allclose(volumes["prior"], volumes["inr"], rtol=0.05)


def test_scores_of_all_methods(reported, whole):
    table = pd.read_csv(reported / "mouse" / "metrics.tsv", sep="\t")
    assert list(table.columns) == ["sample", "method", "metric", "value"]
    assert set(table["sample"]) == {"mouse"}
    scores = table.pivot(index="method", columns="metric", values="value")
    assert set(scores.index) == set(METHODS)
    assert {"psnr", "psnr_3d", "ssim", "dice", "chi2"} <= set(scores.columns)
    needed = scores[["psnr", "psnr_3d", "ssim", "dice", "chi2"]]
    assert np.isfinite(needed.to_numpy()).all()
    truth = np.asarray(open_volume(whole.truth_volume).data)[0, 0, 3:15]
    peak = float(np.asarray(open_volume(whole.truth_volume).data).max())
    for method in METHODS:
        estimate = np.clip(whole.volume(method)[0, 0, 3:15], 0, peak)
        error = np.mean((estimate - np.maximum(truth, 0)) ** 2, axis=(1, 2))
        psnr = 10 * np.log10(peak**2 / error)
        assert scores.loc[method, "psnr"] == pytest.approx(psnr.mean(), abs=1e-3)
        expected = 10 * np.log10(peak**2 / error.mean())
        assert scores.loc[method, "psnr_3d"] == pytest.approx(expected, abs=1e-3)
    slices = pd.read_csv(reported / "mouse" / "slice_metrics.tsv", sep="\t")
    assert sorted(set(slices["z_um"])) == list(range(3, 15))
    assert len(slices) == 12 * len(METHODS)


def test_sample_page_shows_methods_and_training(reported):
    page = (reported / "mouse" / "report.html").read_text(encoding="utf-8")
    assert "mouse" in page and "other mouse" in page
    for method in METHODS:
        assert method in page
    assert page.count("data:image/") >= len(METHODS)
    assert 'src="http' not in page


def test_cohort_page_and_table(reported):
    page = (reported / "report.html").read_text(encoding="utf-8")
    assert 'href="mouse/report.html"' in page
    assert "rat.tif is truncated; copy it again" in page
    assert "other mouse" in page
    cohort = pd.read_csv(reported / "metrics.tsv", sep="\t")
    pd.testing.assert_frame_equal(cohort, pd.read_csv(reported / "mouse/metrics.tsv", sep="\t"))


def test_excluded_training_samples_are_listed_once():
    statuses = report_cohort.list_statuses(["a"], {"b": "broken", "t": "broken"}, ["t", "u"])
    assert [(s.sample, s.status) for s in statuses] == [
        ("a", "done"),
        ("b", "excluded"),
        ("t", "excluded"),
        ("u", "done"),
    ]

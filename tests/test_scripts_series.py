"""Runs the scripts of the rules on an acquisition of two time points and two channels."""

import numpy as np
import pandas as pd
import pytest

import evaluate
import sample_microdiffusion
import train_microdiffusion
import validate
from besselflow.baselines import units
from besselflow.baselines.spectral import posterior_std
from besselflow.config import BASELINES, METHODS, Tiling
from besselflow.errors import InputError
from besselflow.microdiffusion.images import smooth_neighbours
from besselflow.store import open_projections, open_units, open_volume
from report_samples import validation_outputs
from script_chain import (
    INR,
    MICRODIFFUSION,
    SEED,
    TILED,
    WHOLE,
    Chain,
    Raw,
    acquire,
    train_on_a_phantom,
    write_tiff,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    return train_on_a_phantom(tmp_path_factory.mktemp("prior"))


@pytest.fixture(scope="module")
def raw_series(tmp_path_factory):
    return acquire(tmp_path_factory.mktemp("series"), 2, 2)


def test_tiles_of_a_time_point_and_channel_share_the_standard_deviation(
    raw_series, tmp_path, monkeypatch
):
    computed = []
    counted = lambda *arguments: computed.append(1) or posterior_std(*arguments)  # noqa: E731
    monkeypatch.setattr(units, "posterior_std", counted)
    chain = Chain(raw_series, tmp_path, TILED, truth=False).preprocess().reconstruct(["spectral"])
    assert len(open_units(chain.units("spectral")).records) == 16
    assert len(computed) == 4


def test_published_scheme_learns_from_all_times_and_channels(raw_series, tmp_path):
    chain = Chain(raw_series, tmp_path, WHOLE, truth=False).preprocess()
    chain.reconstruct(("spectral", "inr"))
    measured = open_projections(chain.projections)
    images = train_microdiffusion.load_images(
        measured, chain.units("inr"), MICRODIFFUSION, chain.tiling
    )
    assert images.projections.shape == images.guides.shape == (12, 24, 24)
    data = np.asarray(measured.data).reshape(12, 24, 24)
    scales = np.repeat(np.ravel(measured.attributes["scale"]), 3)[:, None, None]
    np.testing.assert_allclose((images.projections + 1) / 2 * scales, data, atol=1e-3)
    inr = np.stack(
        [smooth_neighbours(volume) for volume in chain.volume("inr").reshape(4, 18, 24, 24)]
    )
    seen = measured.operator.forward(inr).reshape(12, 24, 24)
    np.testing.assert_allclose((images.guides + 1) / 2 * scales, seen, atol=1e-3)
    np.testing.assert_allclose(images.weights.sum(axis=1), 1)
    # Each projection collects light from the six slices around its position.
    assert np.argwhere(images.weights[4] > 0.1).ravel().tolist() == list(range(6, 12))


def test_jointly_trained_inr_guides_the_sampling(raw_series, tmp_path):
    """No INR was fitted before: the one that comes out of the training is all there is."""
    chain = Chain(raw_series, tmp_path, Tiling(tile=64, halo=8, shards=2), truth=False).preprocess()
    chain.reconstruct(("spectral",))
    settings = MICRODIFFUSION.model_copy(update={"inr_training": "joint"})
    # What few steps leave over would make it the spectral estimate.
    inr = INR.model_copy(update={"leftover": False})
    joint = train_microdiffusion.Joint(chain.units("spectral"), inr, tmp_path / "units" / "j.zip")
    network = tmp_path / "network.safetensors"
    train_microdiffusion.main(
        chain.projections, [], settings, chain.tiling, SEED, 1, network, joint
    )
    assert not list(tmp_path.glob("*.pt"))
    fitted = open_units([joint.units_path])
    assert sorted(fitted.arrays["volume"]) == [0, 1, 2, 3]
    assert {record["steps"] for record in fitted.records.values()} == {settings.steps}
    scales = np.ravel(open_projections(chain.projections).attributes["scale"])

    def sample(units, name, shard=0):
        path = tmp_path / "units" / name
        sample_microdiffusion.main(
            chain.projections, units, network, settings, chain.tiling, SEED, shard, 1, path
        )
        return open_units([path])

    for shard in range(2):
        found = sample(joint.units_path, f"sampled-{shard}.zip", shard)
        assert found.arrays["volume"]
        for index, volume in found.arrays["volume"].items():
            smooth = smooth_neighbours(np.asarray(fitted.arrays["volume"][index]))
            difference = np.sqrt(np.mean((np.asarray(volume) - smooth) ** 2))
            assert 0 < difference < 0.1 * scales[index]
            assert found.records[index]["inr_training"] == "joint"
    # Guided by something else, the same network gives that instead.
    other = sample(chain.units("spectral")[0], "other.zip")
    first, again = (
        np.asarray(units.arrays["volume"][0])
        for units in (other, open_units([tmp_path / "units" / "sampled-0.zip"]))
    )
    assert np.abs(first - again).max() > 0.1 * scales[0]


def test_joint_training_of_too_many_units_is_refused(raw_series, tmp_path):
    chain = Chain(raw_series, tmp_path, TILED, truth=False).preprocess()
    settings = MICRODIFFUSION.model_copy(update={"inr_training": "joint"})
    joint = train_microdiffusion.Joint([], INR, tmp_path / "j.zip")
    tiling = chain.tiling.model_copy(update={"tile": 6})
    with pytest.raises(InputError, match=r"has \d+ work units .* set it to `pretrained`"):
        train_microdiffusion.main(
            chain.projections, [], settings, tiling, SEED, 1, tmp_path / "n.safetensors", joint
        )


def test_each_time_and_channel_is_reconstructed_by_itself(raw_series, tmp_path):
    chain = Chain(raw_series, tmp_path / "all", Tiling(tile=64, halo=8, shards=2))
    chain.preprocess().reconstruct(BASELINES)
    assert open_volume(chain.truth_volume).data.shape == (2, 2, 18, 24, 24)
    for t, c in np.ndindex(2, 2):
        folder = tmp_path / f"{t}-{c}"
        folder.mkdir()
        write_tiff(folder / "a.tif", raw_series.counts[t, c])
        write_tiff(folder / "truth.tif", raw_series.truth_counts[t, c])
        alone = Raw(folder / "a.tif", raw_series.stage, folder / "truth.tif", None, None)
        single = Chain(alone, folder, WHOLE).preprocess().reconstruct(BASELINES)
        for method in BASELINES:
            np.testing.assert_allclose(
                chain.volume(method)[t, c], single.volume(method)[0, 0], rtol=1e-5, atol=1e-4
            )


def test_time_series_goes_through_all_methods(raw_series, prior, tmp_path):
    chain = Chain(raw_series, tmp_path, WHOLE, truth=False, prior=prior)
    chain.preprocess().reconstruct(METHODS)
    measured = open_projections(chain.projections)
    data = np.asarray(measured.data)
    scale = np.percentile(data, 99.9, axis=(2, 3, 4))
    np.testing.assert_allclose(measured.attributes["scale"], scale, rtol=1e-5)
    records = open_volume(chain.volumes["inr"]).attributes["records"]
    steps = [record["steps"] for record in sorted(records, key=lambda record: record["unit"])]
    # The second time point starts from the first of its channel, and needs fewer steps.
    assert steps == [INR.steps] * 2 + [round(0.4 * INR.steps)] * 2
    for method in METHODS:
        volume = chain.volume(method)
        assert volume.shape == (2, 2, 18, 24, 24)
        # Few steps leave the INR dark, and what stays close to it; the others have the brightness
        # of their own place.
        if method not in ("inr", "microdiffusion"):
            seen = measured.operator.forward(volume).mean(axis=(2, 3, 4))
            np.testing.assert_allclose(seen, data.mean(axis=(2, 3, 4)), rtol=0.1)
    outputs = validation_outputs(tmp_path)
    validate.main(chain.volumes, "diffusion", chain.projections, None, "m", outputs)
    metrics = tmp_path / "metrics.tsv"
    evaluate.main(
        chain.volumes,
        None,
        chain.projections,
        {},
        7,
        "m",
        metrics,
        tmp_path / "s.tsv",
        outputs.metrics,
    )
    table = pd.read_csv(metrics, sep="\t")
    assert set(table["metric"]) == {"chi2", "structure", "determined"}
    assert set(table["method"]) == set(METHODS)
    by_projection = pd.read_csv(outputs.projections, sep="\t")
    assert len(by_projection) == len(METHODS) * 2 * 2 * 3
    assert len(pd.read_csv(outputs.depth, sep="\t")) == len(METHODS) * 2 * 2 * 18
    assert len(pd.read_csv(tmp_path / "s.tsv", sep="\t")) == 0

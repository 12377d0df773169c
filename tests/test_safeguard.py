"""How far the prior is followed: the mixture that predicts withheld projections best."""

import logging
from dataclasses import replace
from itertools import product

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import safeguard
from besselflow.beam import box_profile
from besselflow.config import Refine, Tiling
from besselflow.diffusion.safeguard import (
    PRIOR,
    cautious_weights,
    mix,
    prior_share,
    shrink,
    stacking_weights,
)
from besselflow.held_out import thin
from besselflow.projection import AxialGrid
from besselflow.store import Projections, UnitWriter, open_units, write_projections
from besselflow.tiling import list_units, unit_shape, units_of_shard
from safeguard import Check, Sources, decide

NAMES = (PRIOR, "inr", "variational")


def chi2(weights, predictions, measured, variance):
    mixture = sum(weights[name] * predictions[name] for name in predictions)
    return float(np.mean((mixture - measured) ** 2 / variance))


def problem(seed, count, scale=1.0):
    """Predictions whose errors are correlated, of a measurement whose noise is not uniform."""
    rng = np.random.default_rng(seed)
    truth = rng.random((3, 4, 5))
    variance = rng.uniform(0.01, 1, truth.shape) * scale**2
    measured = scale * truth + np.sqrt(variance) * rng.standard_normal(truth.shape)
    shared = rng.standard_normal(truth.shape)
    predictions = {}
    for name in NAMES[:count]:
        error = rng.uniform(0, 1) * shared + rng.uniform(0, 1) * rng.standard_normal(truth.shape)
        predictions[name] = scale * (truth + rng.uniform(0, 0.7) * error)
    return predictions, measured, variance


def simplex(count, steps):
    """All weights of a grid that are not negative and sum to 1."""
    for parts in product(range(steps + 1), repeat=count - 1):
        if sum(parts) <= steps:
            yield np.array([*parts, steps - sum(parts)]) / steps


@given(st.integers(0, 2**32), st.integers(1, 3), st.sampled_from([1e-3, 1.0, 1e5]))
@settings(max_examples=60, deadline=None)
def test_no_other_mixture_predicts_better(seed, count, scale):
    predictions, measured, variance = problem(seed, count, scale)
    found = stacking_weights(predictions, measured, variance)
    assert list(found) == list(predictions)
    assert sum(found.values()) == pytest.approx(1) and min(found.values()) >= 0
    best = chi2(found, predictions, measured, variance)
    for weights in simplex(count, 20):
        other = dict(zip(predictions, weights, strict=True))
        assert best <= chi2(other, predictions, measured, variance) * (1 + 1e-9)


@given(st.integers(0, 2**32), st.permutations(NAMES))
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_volumes_does_not_matter(seed, order):
    predictions, measured, variance = problem(seed, 3)
    found = stacking_weights(predictions, measured, variance)
    other = stacking_weights({name: predictions[name] for name in order}, measured, variance)
    assert other == pytest.approx(found, abs=1e-9)


def test_independent_errors_are_weighted_by_their_inverse_variance():
    rng = np.random.default_rng(0)
    measured = rng.random(400_000)
    errors = {PRIOR: 0.1, "inr": 0.2, "variational": 0.4}
    predictions = {n: measured + e * rng.standard_normal(measured.shape) for n, e in errors.items()}
    found = stacking_weights(predictions, measured, np.full_like(measured, 0.01))
    total = sum(error**-2 for error in errors.values())
    assert found == pytest.approx({n: e**-2 / total for n, e in errors.items()}, abs=0.01)


def test_noisy_pixels_count_less():
    """Each volume is right where the other is wrong; the one that is right without noise counts."""
    measured = np.zeros(200)
    left = np.arange(200) < 100
    variance = np.where(left, 1.0, 25.0)
    predictions = {PRIOR: np.where(left, 0.0, 1.0), "inr": np.where(left, 1.0, 0.0)}
    found = stacking_weights(predictions, measured, variance)
    # Inverse variance again: an error of 1 / 25 against one of 1.
    assert found == pytest.approx({PRIOR: 25 / 26, "inr": 1 / 26})


@pytest.mark.parametrize("noise", [0.0, 1e-6, 1.0])
@pytest.mark.parametrize("perfect", NAMES)
def test_a_perfect_volume_gets_everything(perfect, noise):
    predictions, measured, variance = problem(1, 3)
    rng = np.random.default_rng(2)
    predictions = {name: value + 30 for name, value in predictions.items()}
    predictions[perfect] = measured + noise * np.sqrt(variance) * rng.standard_normal(
        measured.shape
    )
    found = stacking_weights(predictions, measured, variance)
    assert found[perfect] == pytest.approx(1, abs=0.02)


def test_a_useless_volume_gets_nothing():
    predictions, measured, variance = problem(3, 2)
    predictions["variational"] = predictions["inr"] + (predictions["inr"] - measured)
    found = stacking_weights(predictions, measured, variance)
    assert found["variational"] == 0
    without = stacking_weights({name: predictions[name] for name in NAMES[:2]}, measured, variance)
    assert found == pytest.approx(without | {"variational": 0})


def test_equal_volumes_share_nothing():
    """Of equally good mixtures, the one of fewer volumes is taken."""
    predictions, measured, variance = problem(4, 1)
    found = stacking_weights(dict.fromkeys(NAMES, predictions[PRIOR]), measured, variance)
    assert sorted(found.values()) == [0, 0, 1]


def independent_errors(seed, size):
    """Predictions by a prior and an INR that are wrong by as much, each in its own way."""
    rng = np.random.default_rng(seed)
    measured = rng.random((3, size, size))
    draw = lambda: measured + 0.1 * rng.standard_normal(measured.shape)  # noqa: E731
    return {PRIOR: draw(), "inr": draw()}, measured, np.full_like(measured, 0.01)


def test_the_standard_error_is_that_of_the_share_over_many_draws():
    """It falls with the root of their pixels."""
    errors = {}
    for size in (16, 64):
        found = [independent_errors(seed, size) for seed in range(60)]
        shares, stated, _ = zip(*(prior_share(*each) for each in found), strict=True)
        best = [stacking_weights(*each)[PRIOR] for each in found]
        np.testing.assert_allclose(shares, best, atol=1e-6)
        assert np.mean(stated) == pytest.approx(np.std(shares), rel=0.35)
        assert np.mean(shares) == pytest.approx(0.5, abs=0.01)
        errors[size] = np.mean(stated)
    assert errors[16] / errors[64] == pytest.approx(4, rel=0.35)


@pytest.mark.parametrize(
    ("spread", "other"),
    [(0.03, lambda share: share), (0.1, lambda share: share), (0.3, lambda share: share - 0.1)],
    ids=["of noise", "as large as the noise", "known well"],
)
def test_shrinking_helps_where_shares_are_noise_and_costs_little_where_they_are_known(
    spread, other
):
    """Of many priors whose shares are known up to 0.1, against other ways to take them."""
    rng = np.random.default_rng(0)
    true = np.abs(spread * rng.standard_normal(4000))
    measured = true + 0.1 * rng.standard_normal(4000)
    shrunk = np.array([shrink(share, 0.1) for share in measured])
    others = np.clip(other(measured), 0, 1)
    assert np.square(shrunk - true).mean() < np.square(others - true).mean()


@pytest.mark.parametrize(
    ("share", "error", "expected"),
    [
        (0.5, 0.0, 0.5),
        (0.5, 0.1, 0.48),
        (0.2, 0.2, 0),
        (0.1, 0.3, 0),
        (-0.5, 0.1, 0),
        (1.6, 0.2, 1),
    ],
)
def test_a_share_is_shrunk_by_what_its_square_is_too_large(share, error, expected):
    assert shrink(share, error) == pytest.approx(expected)


def test_a_prior_that_is_no_better_by_chance_is_not_followed_far():
    """Two volumes that err alike, the prior with an error of its own besides."""
    followed = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        measured = rng.random((3, 16, 16))
        inr = measured + 0.1 * rng.standard_normal(measured.shape)
        own = 0.1 * rng.standard_normal((3, 2, 2)).repeat(8, axis=1).repeat(8, axis=2)
        predictions = {PRIOR: inr + own, "inr": inr}
        followed.append(
            cautious_weights(predictions, measured, np.full_like(measured, 0.01))[PRIOR]
        )
    assert np.mean(followed) < 0.03


def test_a_prior_without_errors_is_followed_and_one_that_says_the_same_is_not():
    predictions, measured, variance = independent_errors(0, 16)
    assert cautious_weights({**predictions, PRIOR: measured}, measured, variance)[PRIOR] == 1
    same = {**predictions, PRIOR: predictions["inr"]}
    assert cautious_weights(same, measured, variance) == {PRIOR: 0, "inr": 1}


def test_errors_that_go_together_say_less():
    """One error per block of pixels, repeated, leaves as many independent ones as blocks."""
    predictions, measured, variance = independent_errors(0, 8)
    wide = lambda image: image.repeat(8, axis=1).repeat(8, axis=2)  # noqa: E731
    best = stacking_weights(predictions, measured, variance)[PRIOR]
    each = {name: wide(image) for name, image in predictions.items()}
    share, stated, _ = prior_share(each, wide(measured), wide(variance))
    assert share == pytest.approx(best)
    apart, error = predictions[PRIOR] - predictions["inr"], predictions["inr"] - measured
    slopes = ((error + best * apart) * apart).sum(axis=0)
    assert stated == pytest.approx(np.sqrt((slopes**2).sum()) / (apart**2).sum(), rel=1e-6)


def test_equal_volumes_beside_another():
    predictions, measured, variance = problem(5, 2)
    pair = stacking_weights(predictions, measured, variance)
    assert 0.05 < pair["inr"] < 0.95
    triple = predictions | {"variational": predictions["inr"]}
    found = stacking_weights(triple, measured, variance)
    assert found["inr"] + found["variational"] == pytest.approx(pair["inr"])


def test_nothing_to_predict_still_gives_a_mixture():
    """A channel without any light, which every volume predicts without an error."""
    zero = np.zeros((2, 3))
    found = stacking_weights(dict.fromkeys(NAMES, zero), zero, zero + 1)
    assert sum(found.values()) == pytest.approx(1)


def test_opposite_errors_cancel():
    """Neither volume is right, and the one between both is."""
    measured = np.linspace(0, 1, 50)
    error = np.sin(measured * 9)
    predictions = {PRIOR: measured + error, "inr": measured - 2 * error}
    found = stacking_weights(predictions, measured, np.ones(50))
    assert found == pytest.approx({PRIOR: 2 / 3, "inr": 1 / 3}, abs=1e-4)


@given(st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_a_mixture_has_the_moments_of_its_parts(seed):
    rng = np.random.default_rng(seed)
    volumes = {name: rng.random((2, 3, 4)).astype(np.float32) for name in NAMES}
    spread = rng.random((2, 3, 4)).astype(np.float32)
    weights = dict(zip(NAMES, rng.dirichlet([1, 1, 1]), strict=True))
    mean, std = mix(volumes, spread, weights)
    assert mean.dtype == std.dtype == np.float32
    first = sum(weights[name] * volumes[name] for name in NAMES)
    second = sum(weights[name] * (volumes[name] ** 2 + spread**2) for name in NAMES)
    np.testing.assert_allclose(mean, first, rtol=1e-5)
    np.testing.assert_allclose(std**2, second - first**2, rtol=1e-4, atol=1e-6)


def test_the_prior_alone_keeps_its_own_deviation_and_a_volume_of_no_weight_leaves_no_trace():
    volumes = {PRIOR: np.full((1, 2, 2), 3.0), "inr": np.full((1, 2, 2), np.nan)}
    mean, std = mix(volumes, np.full((1, 2, 2), 0.5), {PRIOR: 1, "inr": 0})
    np.testing.assert_array_equal(mean, 3)
    np.testing.assert_array_equal(std, 0.5)


@pytest.mark.parametrize("trust", [0, 0.25, 1])
def test_a_number_says_how_far_the_prior_is_followed(trust):
    found = decide(Refine(trust=trust), None, None, 2, ["inr", "variational"])
    assert found == 2 * [{PRIOR: trust, "inr": 1 - trust, "variational": 0}]


def test_without_a_check_the_inr_is_taken(caplog):
    with caplog.at_level(logging.WARNING, "besselflow"):
        found = decide(Refine(), None, None, 1, ["inr", "variational"])
    assert found == [{PRIOR: 0, "inr": 1, "variational": 0}]
    assert "no projection could be withheld" in caplog.text


SHAPE = (2, 2, 40, 26, 30)
POSITIONS = np.arange(3.5, 38, 3.0)
TILING = Tiling(tile=12, halo=3, shards=2)
SIGMA = 2.0


class Facility:
    """An acquisition of two channels and time points, and reconstructions of known errors."""

    def __init__(self, folder, every):
        rng = np.random.default_rng(0)
        self.folder = folder
        self.truth = (20 * rng.random(SHAPE)).astype(np.float32)
        whole = Projections(
            data=da.zeros((2, 2, len(POSITIONS), *SHAPE[3:]), dtype="float32"),
            positions_um=POSITIONS,
            profile=box_profile(6.0),
            grid=AxialGrid(0.0, 1.0, SHAPE[2]),
            pixel_size_um=(1.0, 1.0),
            unit="photons",
            attributes={"scale": [[20.0, 20.0]] * 2},
        )
        images = whole.operator.forward(self.truth)
        images += SIGMA * rng.standard_normal(images.shape)
        self.whole = replace(whole, data=da.from_array(images.astype(np.float32)))
        self.thinned = thin(self.whole, every, 16)
        # The prior is right in the first channel, the INR in the second.
        wrong = 10 * rng.standard_normal((2, *SHAPE)).astype(np.float32)
        wrong[0, :, 0] = wrong[1, :, 1] = 0
        self.volumes = dict(zip((PRIOR, "inr"), self.truth + wrong, strict=True))
        self.volumes["spectral"] = self.truth
        taken = self.thinned.attributes["held_out"]
        t, region = taken["t"], (slice(*taken["y"]), slice(*taken["x"]))
        self.write(folder / "whole", self.whole, self.volumes, TILING)
        self.write(
            folder / "thinned",
            self.thinned,
            {n: v[t : t + 1, :, :, *region] for n, v in self.volumes.items()},
            self.thinned_tiling,
        )

    thinned_tiling = TILING.model_copy(update={"shards": 1})

    def write(self, folder, projections, volumes, tiling):
        write_projections(folder / "projections.zip", projections)
        units = list_units(projections.data.shape, tiling.tile, tiling.halo)
        size = unit_shape(units, SHAPE[2])
        for name, shard in product(volumes, range(tiling.shards)):
            mine = units_of_shard(units, shard, tiling.shards, tiling.chain)
            path = folder / f"{name}-{shard}.zip"
            with UnitWriter(path, mine, size, names=("volume", "std")) as writer:
                for unit in mine:
                    own = volumes[name][unit.t, unit.c][:, unit.tile.y, unit.tile.x]
                    record = {"noise_variance": SIGMA**2, "mean": 10.0, "evaluations": 3}
                    # The data of the second time point contradict the prior.
                    record |= {"training_error": 0.01, "assumed_error": 0.01 * (1 + unit.t)}
                    spread = np.full_like(own, 1.0 if name == PRIOR else 2.0)
                    writer.write(unit, record, volume=own, std=spread)

    def sources(self, part, shard):
        path = lambda name: self.folder / part / f"{name}-{shard}.zip"  # noqa: E731
        return Sources(path(PRIOR), {"inr": path("inr")}, path("spectral"))

    def run(self, shard, refine, checked=True):
        check = Check(
            self.folder / "thinned" / "projections.zip",
            self.sources("thinned", 0),
            self.thinned_tiling,
        )
        whole, units = self.folder / "whole" / "projections.zip", self.folder / f"{shard}.zip"
        safeguard.main(
            whole,
            self.sources("whole", shard),
            whole,
            check if checked else None,
            refine,
            TILING,
            shard,
            units,
        )
        return open_units([units])


@pytest.fixture(scope="module", params=[4, 6], ids=["withheld", "folded"])
def facility(request, tmp_path_factory):
    return Facility(tmp_path_factory.mktemp("safeguard"), request.param)


@pytest.mark.parametrize("shard", [0, 1])
def test_each_channel_follows_what_predicts_it_best(facility, shard):
    found = facility.run(shard, Refine())
    units = list_units(facility.whole.data.shape, TILING.tile, TILING.halo)
    mine = units_of_shard(units, shard, TILING.shards, TILING.chain)
    assert list(found.records) == [unit.index for unit in mine]
    for unit in mine:
        record = found.records[unit.index]
        right, wrong = (PRIOR, "inr") if unit.c == 0 else ("inr", PRIOR)
        weights = record["weights"]
        assert weights[right] > 0.85 and sum(weights.values()) == pytest.approx(1)
        assert record["checked"] and record["evaluations"] == 3
        place = (unit.t, unit.c, slice(None), unit.tile.y, unit.tile.x)
        parts = [facility.volumes[name][place] for name in (right, wrong)]
        shares = [weights[name] for name in (right, wrong)]
        mean = np.asarray(found.arrays["volume"][unit.index])
        np.testing.assert_allclose(mean, shares[0] * parts[0] + shares[1] * parts[1], rtol=1e-4)
        # It is as unsure as it says where it knows the sample, and no surer than others elsewhere.
        assert record["doubted"] == (unit.t == 1)
        own = 4.0 if record["doubted"] else 1.0
        spread = own + shares[0] * shares[1] * (parts[0] - parts[1]) ** 2
        std = np.asarray(found.arrays["std"][unit.index])
        np.testing.assert_allclose(std**2, spread, rtol=1e-3)
    # Each shard holds the tiles of one of the channels.
    assert {unit.c for unit in mine} == {shard}


def test_whatever_was_not_checked_says_so(facility):
    for refine, checked in ((Refine(trust=0.5), True), (Refine(), False)):
        records = facility.run(0, refine, checked).records.values()
        assert not any(record["checked"] for record in records)
    assert all(record["weights"] == {PRIOR: 0, "inr": 1} for record in records)


def test_inputs_of_the_thinned_acquisition_carry_a_prefix():
    paths = {"prior": "p", "spectral": "s", "inr": "i", "thinned_inr": "ti"}
    assert safeguard.sources_of(paths) == Sources("p", {"inr": "i"}, "s")
    more = paths | {"thinned_prior": "tp", "thinned_spectral": "ts"}
    assert safeguard.sources_of(more).untrained == {"inr": "i"}
    assert safeguard.sources_of(more, "thinned_") == Sources("tp", {"inr": "ti"}, "ts")

"""Misfit and the split into measured and inferred, against closed forms."""

from typing import ClassVar

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from besselflow import validation
from besselflow.beam import box_profile, gaussian_profile
from besselflow.projection import AxialGrid, AxialProjection
from besselflow.store import Projections, Volume
from besselflow.validation import Noise, determined_map, examine, judge_fit

SHAPE = (2, 2, 12, 150, 140)
POSITIONS = np.array([1.0, 4.0, 7.0, 10.0])


def lazy(array, chunks=(1, 1, 4, 64, 64)):
    return da.from_array(array, chunks=chunks)


def acquisition(data, positions=POSITIONS, n_slices=12):
    return Projections(
        data=lazy(data),
        positions_um=positions,
        profile=box_profile(3.0),
        grid=AxialGrid(0.0, 1.0, n_slices),
        pixel_size_um=(1.0, 1.0),
        unit="photons",
    )


def uniform_noise(volume, variance):
    """Noise of one variance everywhere: the expected intensity is the mean."""
    flat = np.full(volume.shape, 100.0, "float32")
    places = volume.shape[:2]
    return Noise(lazy(flat), np.full(places, variance), np.full(places, 100.0))


@pytest.fixture(scope="module")
def volume():
    rng = np.random.default_rng(4)
    return rng.random(SHAPE).astype("float32") * 100


@pytest.fixture(scope="module")
def clean(volume):
    empty = acquisition(np.zeros((*SHAPE[:2], 4, *SHAPE[3:]), "float32"))
    return empty.operator.forward(volume)


@pytest.fixture(scope="module")
def noisy(clean):
    rng = np.random.default_rng(5)
    return acquisition((clean + rng.normal(0, 2, clean.shape)).astype("float32"))


def test_the_true_volume_leaves_white_noise_with_a_chi_square_of_one(volume, noisy):
    found = examine(lazy(volume), noisy, uniform_noise(volume, 4.0))
    error = np.sqrt(2 / (150 * 140))
    assert found.chi2_by_projection.shape == (2, 2, 4) and found.pixels == 150 * 140
    assert np.abs(found.chi2_by_projection - 1).max() < 5 * error
    assert abs(found.structure) < 5 * found.structure_error
    assert found.structure_error == pytest.approx(1 / np.sqrt(2 * 16 * 150 * 140), rel=0.01)
    assert judge_fit(found.summary()["chi2"], found.structure) is None
    assert not validation.unexplained_projections(found.chi2_by_projection, found.pixels).any()


def test_the_map_has_the_mean_of_the_projections_and_finds_the_place_of_a_misfit(volume, noisy):
    spoilt = volume.copy()
    spoilt[:, 1, :, 60:75, 20:40] += 20
    found = examine(lazy(spoilt), noisy, uniform_noise(volume, 4.0))
    edge = found.bin_pixels
    assert edge**2 * 4 >= 64
    assert found.chi2_map.shape == (2, -(-150 // edge), -(-140 // edge))
    y, x = np.unravel_index(found.chi2_map[1].argmax(), found.chi2_map[1].shape)
    assert 60 // edge <= y < 75 // edge and 20 // edge <= x < 40 // edge
    assert found.chi2_map[0].max() < 3
    sizes = [np.add.reduceat(np.ones(n), np.arange(0, n, edge)) for n in (150, 140)]
    mean = np.average(found.chi2_map.mean(axis=0), weights=np.outer(*sizes))
    assert mean == pytest.approx(found.chi2_by_projection.mean(), rel=1e-5)


@pytest.mark.parametrize("memory", [1000, 12 * 128 * 128])
def test_tiles_change_nothing_but_the_pairs_at_their_borders(volume, noisy, memory, monkeypatch):
    noise = uniform_noise(volume, 4.0)
    whole = examine(lazy(volume), noisy, noise)
    monkeypatch.setattr(validation, "_BLOCK_VOXELS", memory)
    tiled = examine(lazy(volume), noisy, noise)
    for name in ("determined", "inferred", "chi2_by_projection", "chi2_map"):
        np.testing.assert_allclose(getattr(tiled, name), getattr(whole, name), rtol=1e-4)
    assert tiled.structure == pytest.approx(whole.structure, abs=2e-3)


def test_a_blurred_volume_underfits_and_is_found_by_its_structure_first(volume, clean):
    rng = np.random.default_rng(6)
    blurred = np.zeros_like(clean)
    blurred[..., 20:60, 20:60] = 3.4
    wrong = clean + blurred + rng.normal(0, 2, clean.shape).astype("float32")
    found = examine(lazy(volume), acquisition(wrong), uniform_noise(volume, 4.0))
    chi2 = found.summary()["chi2"]
    assert chi2 == pytest.approx(1 + 3.4**2 / 4 * 40 * 40 / (150 * 140), abs=0.02) and chi2 < 1.25
    assert found.structure > 0.2
    assert judge_fit(chi2, found.structure) == "underfits"


def test_a_dark_volume_underfits_and_one_that_follows_the_noise_overfits(volume, noisy):
    noise = uniform_noise(volume, 4.0)
    dark = examine(lazy(volume * 0.9), noisy, noise)
    assert judge_fit(dark.summary()["chi2"], dark.structure) == "underfits"
    assert validation.unexplained_projections(dark.chi2_by_projection, dark.pixels).all()
    exact = noisy.operator.prox(volume, np.asarray(noisy.data), 0)
    followed = examine(lazy(exact), noisy, noise)
    assert followed.summary()["chi2"] < 1e-6
    assert judge_fit(followed.summary()["chi2"], followed.structure) == "overfits"


def test_photon_noise_is_judged_by_the_variance_of_each_pixel():
    rng = np.random.default_rng(7)
    volume = np.broadcast_to(np.linspace(5, 400, 140), (1, 1, 12, 150, 140)).astype("float32")
    clean = acquisition(np.zeros((1, 1, 4, 150, 140), "float32")).operator.forward(volume)
    data = acquisition(rng.poisson(clean).astype("float32"))
    mean = float(volume.mean())
    noise = Noise(lazy(volume), np.full((1, 1), mean), np.full((1, 1), mean))
    found = examine(lazy(volume), data, noise)
    # The floor of the variance, for read noise, weighs on the darkest columns only.
    np.testing.assert_allclose(found.chi2_map[0].mean(axis=0)[9:], 1, atol=0.25)


def test_noise_is_read_per_time_and_channel_off_the_spectral_records():
    data = da.ones((2, 3, 4, 6, 6), dtype="float32")
    records = [
        {"unit": unit, "noise_variance": 1.0 + unit // 2, "mean": 10.0 * (1 + unit // 2)}
        for unit in range(12)
    ]
    noise = Noise.from_spectral(Volume(data, (1, 1, 1), (0, 0, 0), {"records": records}))
    np.testing.assert_array_equal(noise.variance, [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(noise.mean, 10 * noise.variance)
    for record in records:
        record["noise_variance"] = 0.0
    with pytest.raises(ValueError, match="must be positive"):
        Noise.from_spectral(Volume(data, (1, 1, 1), (0, 0, 0), {"records": records}))


def test_without_noise_only_the_split_is_told(volume, noisy):
    found = examine(lazy(volume), noisy)
    assert set(found.summary()) == {"determined"}
    assert found.chi2_map is None and judge_fit(None, None) is None


def test_a_value_that_is_not_finite_is_named(volume, noisy):
    spoilt = volume.copy()
    spoilt[1, 0, 3, 140, 130] = np.nan
    with pytest.raises(ValueError, match=r"not finite at t 1, channel 0, rows .*150"):
        examine(lazy(spoilt), noisy)


geometries = st.tuples(
    st.sampled_from([box_profile(2.0), box_profile(6.0), gaussian_profile(4.0)]),
    st.floats(0.7, 9.0),
    st.integers(0, 2**32 - 1),
)


@settings(deadline=None, max_examples=40)
@given(geometries)
def test_determined_and_inferred_energies_add_up(geometry):
    profile, step, seed = geometry
    grid = AxialGrid(0.0, 1.0, 20)
    positions = np.arange(3.0, 17.0, step)
    operator = AxialProjection.from_geometry(profile, positions, grid)
    volume = np.random.default_rng(seed).normal(2, 1, (20, 5, 4))
    determined = operator.pinv(operator.forward(volume))
    energies = validation.split_energies(volume, determined)
    assert energies.sum() == pytest.approx(np.square(volume).sum(), rel=1e-9)
    # The other part changes no projection.
    hidden = operator.forward(volume - determined)
    assert np.abs(hidden).max() < 1e-2 * np.abs(volume).max()


def parts(operator, shape):
    rng = np.random.default_rng(8)
    measured = operator.adjoint(rng.random((*shape[:2], 4, *shape[3:])))
    any_volume = rng.random(shape)
    hidden = any_volume - operator.pinv(operator.forward(any_volume))
    return measured, hidden


def test_what_lies_in_the_range_is_measured_and_what_lies_in_the_null_space_inferred():
    shape = (1, 2, 12, 40, 36)
    data = acquisition(np.zeros((1, 2, 4, 40, 36)))
    measured, hidden = parts(data.operator, shape)
    assert examine(lazy(measured), data).determined_share == pytest.approx(1, abs=1e-9)
    assert examine(lazy(hidden), data).determined_share == pytest.approx(0, abs=1e-9)
    both = examine(lazy(measured + hidden), data)
    expected = np.square(measured).sum() / (np.square(measured).sum() + np.square(hidden).sum())
    assert both.determined_share == pytest.approx(expected)
    assert both.determined.shape == (1, 2, 12)
    for volume, share in ((measured, 1), (hidden, 0)):
        found = np.asarray(determined_map(lazy(volume), data.operator))
        np.testing.assert_allclose(found, share, atol=1e-6)


def test_slices_that_none_saw_are_inferred_throughout():
    positions = np.array([1.0, 10.0])
    data = acquisition(np.zeros((1, 1, 2, 8, 8)), positions)
    volume = np.ones((1, 1, 12, 8, 8))
    found = examine(lazy(volume), data)
    unseen = ~data.operator.seen
    assert unseen.sum() == 6
    assert found.determined[0, 0, unseen].max() < 1e-12
    np.testing.assert_allclose(found.inferred[0, 0, unseen], 64)
    np.testing.assert_allclose(found.determined[0, 0, ~unseen], 64)


def test_blocks_do_not_change_the_map(monkeypatch):
    rng = np.random.default_rng(9)
    volume = rng.random((2, 1, 12, 50, 40)).astype("float32")
    operator = acquisition(np.zeros((2, 1, 4, 50, 40))).operator
    whole = np.asarray(determined_map(lazy(volume), operator))
    monkeypatch.setattr(validation, "column_edge", lambda depth: 16)
    np.testing.assert_allclose(np.asarray(determined_map(lazy(volume), operator)), whole, atol=1e-5)
    tiny = np.asarray(determined_map(lazy(volume[..., :3, :2]), operator))
    assert tiny.shape == (2, 1, 12, 3, 2) and 0 <= tiny.min() <= tiny.max() <= 1


class Watched:
    """A volume of ones that remembers how many pixels of it were read; Dask makes copies of it."""

    shape, dtype, ndim = (1, 1, 12, 400, 400), np.dtype("float32"), 5
    read: ClassVar[list[int]] = []

    def __getitem__(self, window):
        values = np.ones(self.shape, self.dtype)[window]
        self.read.append(values.size // 12)
        return values


def test_a_block_of_the_map_is_read_with_its_margin_and_not_with_its_neighbours(monkeypatch):
    """So that what is in memory does not depend on how many blocks lie around it."""
    monkeypatch.setattr(validation, "column_edge", lambda depth: 100)
    source = da.from_array(Watched(), chunks=(1, 1, 12, 100, 100), name="source")
    share = determined_map(source, acquisition(np.zeros((1, 1, 4, 400, 400))).operator)
    Watched.read.clear()
    assert share[..., 100:200, 200:300].compute().shape == (1, 1, 12, 100, 100)
    assert sum(Watched.read) == (100 + 2 * 6) ** 2


def test_a_volume_without_light_hides_nothing():
    dark = np.zeros((1, 1, 12, 8, 8), "float32")
    data = acquisition(np.zeros((1, 1, 4, 8, 8), "float32"))
    assert examine(lazy(dark), data).determined_share == 1
    assert np.asarray(determined_map(lazy(dark), data.operator)).min() == 1

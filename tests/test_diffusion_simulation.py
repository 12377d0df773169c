"""Simulated acquisitions: they image their volume with the noise they state, and survive a file."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from besselflow.beam import box_profile
from besselflow.config import Inr, Spectral
from besselflow.corrections import intensity_scale
from besselflow.diffusion.geometry import Geometry
from besselflow.diffusion.simulation import SimulatedAcquisition, facts_of, simulate_acquisition
from besselflow.phantoms import draw_phantom
from tiny_priors import VOXEL, toy_acquisition

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
INR = Inr(width=8, depth=1, features=8, steps=5, columns=32)
KERNEL = np.outer([0.1, 0.8, 0.1], [0.2, 0.6, 0.2])
GEOMETRY = Geometry.of(box_profile(5.0), np.arange(0, 20, 2.5), VOXEL)
BLURRED = replace(GEOMETRY, lateral_kernel=tuple(map(tuple, KERNEL)))
SEEDS = range(8)


@pytest.fixture(scope="module")
def volume():
    return draw_phantom("cells", (28, 20, 18), 1, VOXEL)


@pytest.fixture(scope="module")
def simulate(volume, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fits")

    def run(seed, geometry=GEOMETRY, volume=volume):
        return simulate_acquisition(
            volume, geometry, seed, Spectral(), INR, folder / "c.pt", CPU, "fit"
        )

    return run


@pytest.fixture(scope="module")
def simulated(simulate):
    return [simulate(seed) for seed in SEEDS]


def test_acquisitions_image_their_volume_with_the_noise_they_state(simulated):
    noises = []
    for each in simulated:
        residual = each.projections - each.operator.forward(each.truth)
        noise = residual.std()
        assert abs(residual.mean()) < 5 * noise / residual.size**0.5
        assert noise == pytest.approx(each.noise, rel=0.3)
        # Bright means 1, whatever the number of photons.
        assert intensity_scale(each.projections) == pytest.approx(1, rel=1e-5)
        noises.append(noise)
    # From barely usable to nearly noise-free.
    assert max(noises) > 2 * min(noises)


def test_noise_grows_with_the_light_as_that_of_photons_does(simulated):
    dim, bright = [], []
    for each in simulated:
        clean = each.operator.forward(each.truth)
        squares = (each.projections - clean) ** 2
        photons = clean.mean() / squares.mean()
        assert 50 < photons < 2000
        known = squares / (clean / photons + (0.5 / photons) ** 2)
        halves = clean > np.median(clean)
        bright.append(known[halves].mean())
        dim.append(known[~halves].mean())
        # Noise of one variance would differ between the halves by this.
        assert clean[halves].mean() > 1.5 * clean[~halves].mean()
    assert np.mean(bright) == pytest.approx(1, abs=0.05)
    assert np.mean(dim) == pytest.approx(1, abs=0.05)


def test_truth_is_the_volume_in_units_of_the_scale(simulated, volume):
    for each in simulated:
        factor = each.truth.max() / volume.max()
        np.testing.assert_allclose(each.truth, factor * volume, rtol=1e-5, atol=1e-7)
        assert each.truth.dtype == each.inr.dtype == each.spectral.dtype == np.float32


def test_estimates_explain_the_data(simulated):
    for each in simulated:
        for estimate in (each.inr, each.spectral):
            assert estimate.shape == each.truth.shape
            residual = each.projections - each.operator.forward(estimate)
            assert residual.std() < 1.5 * each.noise + 0.02
            assert np.sqrt(np.mean((estimate - each.truth) ** 2)) < 0.9 * each.truth.std()
        assert each.inr.min() >= 0 and not np.allclose(each.inr, each.spectral, atol=1e-3)


def test_simulations_are_determined_by_the_seed(simulate, simulated):
    again = simulate(SEEDS[1])
    for name, value in vars(simulated[1]).items():
        np.testing.assert_array_equal(getattr(again, name), value)
    assert not np.allclose(simulated[0].truth, simulated[1].truth)


def test_the_unit_of_the_volume_does_not_matter(simulate, simulated, volume):
    again = simulate(SEEDS[0], volume=1024 * volume)
    np.testing.assert_array_equal(again.projections, simulated[0].projections)
    np.testing.assert_array_equal(again.truth, simulated[0].truth)


def test_nothing_is_darker_than_black(simulate, volume):
    negative = simulate(0, volume=volume - 0.3 * volume.max())
    assert negative.truth.min() == 0


def test_half_of_the_acquisitions_are_thinned(simulated):
    """Some projections are missing there, and others are those of a longer beam."""
    thinned, folded = [], 0
    for each in simulated:
        assert len(each.positions_um) == len(each.matrix) == len(each.projections)
        steps = np.diff(each.positions_um) / np.diff(each.positions_um).min()
        whole = np.allclose(steps, steps[0])
        thinned.append(not whole)
        lengths = (each.matrix > 1e-9).sum(axis=1)
        inner = lengths[2:-2]
        if whole:
            assert np.ptp(inner) <= 1
        folded += np.ptp(inner) > 1
        np.testing.assert_allclose(each.matrix[2:-2].sum(axis=1), 1, atol=1e-3)
    assert 1 <= sum(thinned) < len(thinned) and folded >= 1


def test_phases_and_beams_differ(simulated):
    first = {round(float(each.positions_um[0]), 6) for each in simulated}
    assert len(first) == len(simulated)
    steps = np.array([np.diff(each.positions_um).min() for each in simulated])
    nominal = np.isclose(steps, 2.5)
    assert 0 < nominal.sum() < len(steps)
    assert np.all(np.abs(steps / 2.5 - 1) <= 0.12)


@pytest.mark.parametrize("geometry", [GEOMETRY, BLURRED], ids=["sharp", "blurred"])
def test_files_hold_all_of_an_acquisition(simulate, geometry, tmp_path):
    each = simulate(3, geometry)
    each.save(tmp_path / "a b.npz")
    loaded = SimulatedAcquisition.load(tmp_path / "a b.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["a b.npz"]
    assert isinstance(loaded.noise, float)
    for name, value in vars(each).items():
        found = getattr(loaded, name)
        if value is None:
            assert found is None
            continue
        assert np.asarray(found).dtype == np.asarray(value).dtype
        if name in ("truth", "inr", "spectral"):
            # Half precision has eleven binary digits.
            np.testing.assert_allclose(found, value, rtol=2**-11, atol=1e-7)
        else:
            np.testing.assert_array_equal(found, value)
    kernel = None if geometry.lateral is None else geometry.lateral.kernel
    np.testing.assert_equal(loaded.kernel, kernel)


def test_side_lobes_blur_what_is_simulated(simulate):
    each = simulate(3, BLURRED)
    residual = each.projections - each.operator.forward(each.truth)
    assert residual.std() == pytest.approx(each.noise, rel=0.3)
    sharp = replace(each, kernel=None).operator
    assert (each.projections - sharp.forward(each.truth)).std() > 1.2 * residual.std()


def test_mean_errors_are_those_of_all_voxels():
    one, two = toy_acquisition(0), toy_acquisition(1)
    one = replace(one, inr=one.truth + np.float32(0.3), spectral=one.truth)
    two = replace(two, inr=two.truth - np.float32(0.4), spectral=two.truth + np.float32(0.2))
    facts = facts_of([one, two])
    assert facts["inr_error"] == pytest.approx(np.sqrt((0.09 + 0.16) / 2), rel=1e-5)
    assert facts["spectral_error"] == pytest.approx(0.2 / np.sqrt(2), rel=1e-5)

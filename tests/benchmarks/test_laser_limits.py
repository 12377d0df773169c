"""What limits the correction of a laser: that samples are no Gaussian processes."""

from dataclasses import replace

import dask.array as da
import laser_limits as bench
import numpy as np
import scipy.fft

from besselflow.beam import box_profile
from besselflow.projection import AxialGrid
from besselflow.store import Projections

SHAPE = (24, 48, 48)


def test_polynomials_are_taken_out_up_to_their_degree():
    time = np.linspace(0, 3, 11)
    parabola, alternating = 1 + time - 2 * time**2, (-1.0) ** np.arange(11)
    np.testing.assert_allclose(bench.without_smooth(parabola, 2), 0, atol=1e-12)
    assert np.abs(bench.without_smooth(parabola, 1)).max() > 1
    left = bench.without_smooth(alternating + parabola, 2)
    assert np.abs(np.diff(left)).min() > 1


def test_gains_of_a_gaussian_process_are_as_sure_as_it_says():
    rng = np.random.default_rng(0)
    # Twice as long on each side, so that no edge continues at the other one.
    frequency = np.meshgrid(*(np.fft.fftfreq(2 * n) for n in SHAPE), indexing="ij")
    spectrum = 1e5 * (1 + sum(f**2 for f in frequency) * (2 * np.pi * 1.5) ** 2) ** -3.0
    white = scipy.fft.fftn(rng.normal(size=spectrum.shape))
    volume = scipy.fft.ifftn(white * np.sqrt(spectrum)).real[tuple(slice(n) for n in SHAPE)]
    measured = Projections(
        data=da.zeros((1, 1, 7, *SHAPE[1:]), dtype=np.float32),
        positions_um=2.5 + 3.0 * np.arange(7),
        profile=box_profile(6.0),
        grid=AxialGrid(0.0, 1.0, SHAPE[0]),
        pixel_size_um=(1.0, 1.0),
        unit="photons",
    )
    truth = 0.1 * rng.normal(size=7)
    images = np.exp(truth)[:, None, None] * measured.operator.forward(volume)
    images += rng.normal(size=images.shape) * 2
    measured = replace(measured, data=da.from_array(images[None, None].astype(np.float32)))
    errors, standard = bench.likelihood_errors(measured, truth)
    assert 0.4 < np.sqrt(np.mean((errors / standard) ** 2)) < 2
    assert np.abs(errors).max() < 0.1

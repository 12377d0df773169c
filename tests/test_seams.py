"""Checks that tiles leave no trace: tiled and untiled volumes agree, and no step betrays a border.

Interpolation and Richardson-Lucy see one pixel at a time and agree exactly. All others depend on
the surroundings, which a tile has to the width of its halo; the INR is moreover fitted to each tile
on its own, and what is made of it, such as the volumes of the prior, differs where tiles overlap.
"""

import dask.array as da
import numpy as np
import pytest

import assemble
import fit_inr
import reconstruct_baseline
import refine
import safeguard
import sample_microdiffusion
import train_microdiffusion
from besselflow.beam import box_profile
from besselflow.config import Inr, Microdiffusion, Refine, RichardsonLucy, Tiling, Variational
from besselflow.phantoms import draw_phantom
from besselflow.projection import AxialGrid, AxialProjection
from besselflow.store import Projections, open_units, open_volume, write_projections
from besselflow.tiling import list_units
from tiny_priors import write_tiny_prior

SHAPE, PHOTONS = (12, 96, 96), 60.0
TILED, WHOLE = Tiling(tile=32, halo=12), Tiling(tile=96, halo=12)
# Ratio of the steps across the edges of tiles and where they blend to those elsewhere; a ratio of
# two such means of a random field scatters by a few percent.
MOST_STEP, MOST_EDGE = 1.15, 1.5
INR = Inr(steps=250, width=32, features=32, held_out=0)
REFINE = Refine(evaluations=2, samples=1)
# Of three levels, so that the attention in the last sees few pixels and takes little time.
MICRODIFFUSION = Microdiffusion(channels=[8, 8, 16], steps=20, batch=2, sampling_steps=10)
LEARNED = ["inr", "prior", "diffusion", "microdiffusion"]


class Sample:
    """An acquisition of a phantom, reconstructed tile by tile and at once."""

    def __init__(self, folder):
        self.folder, self.done = folder, {}
        truth = draw_phantom("vessels", SHAPE, 3, (1.0, 1.0, 1.0))
        profile, grid = box_profile(4.0), AxialGrid(0.0, 1.0, SHAPE[0])
        positions = np.array([1.5, 5.5, 9.5])
        operator = AxialProjection.from_geometry(profile, positions, grid)
        expected = PHOTONS * operator.forward(truth)
        data = np.random.default_rng(0).poisson(expected).astype(np.float32)
        projections = Projections(
            data=da.from_array(data[None, None]),
            positions_um=positions,
            profile=profile,
            grid=grid,
            pixel_size_um=(1.0, 1.0),
            unit="photons",
            attributes={"sample": "a", "scale": [[float(np.percentile(data, 99.9))]]},
        )
        self.projections = folder / "projections.zip"
        write_projections(self.projections, projections)

    def volume(self, method, tiling):
        """Return a volume (Z, Y, X) of a method and cut."""
        name = f"{method}-{tiling.tile}"
        path = self.folder / f"{name}.ozx"
        if not path.exists():
            assemble.main(
                self.projections, {method: [self.units(method, tiling)]}, tiling, {method: path}, {}
            )
        return np.asarray(open_volume(path).data[0, 0])

    def units(self, method, tiling):
        path = self.folder / f"{method}-{tiling.tile}.zip"
        if path.exists():
            return path
        if method == "inr":
            spectral = self.units("spectral", tiling)
            fit_inr.main(self.projections, spectral, INR, tiling, 0, 0, 1, path)
        elif method == "prior":
            spectral, inr = self.units("spectral", tiling), self.units("inr", tiling)
            prior = write_tiny_prior(self.folder / "prior.safetensors")
            refine.main(self.projections, spectral, inr, prior, REFINE, tiling, 0, 0, 1, path)
        elif method == "diffusion":
            sources = safeguard.Sources(
                self.units("prior", tiling),
                {"inr": self.units("inr", tiling)},
                self.units("spectral", tiling),
            )
            half = REFINE.model_copy(update={"trust": 0.5})
            safeguard.main(self.projections, sources, self.projections, None, half, tiling, 0, path)
        elif method == "microdiffusion":
            # One network for both, as the tiling is no matter of its training.
            network = self.folder / "network.safetensors"
            if not network.exists():
                fitted = [self.units("inr", WHOLE)]
                train_microdiffusion.main(
                    self.projections, fitted, MICRODIFFUSION, WHOLE, 0, 1, network
                )
            inr = self.units("inr", tiling)
            sample_microdiffusion.main(
                self.projections, inr, network, MICRODIFFUSION, tiling, 0, 0, 1, path
            )
        else:
            settings = {
                "variational": Variational(weight=0.04),
                "richardson_lucy": RichardsonLucy(iterations=5),
            }
            start = self.units("spectral", tiling) if method == "variational" else None
            reconstruct_baseline.main(
                self.projections, method, tiling, 0, path, start, settings.get(method)
            )
        return path


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return Sample(tmp_path_factory.mktemp("seams"))


def step_ratio(volume, tiling, reference):
    """Compare the steps between neighbouring pixels where tiles meet with those elsewhere.

    The structures of the sample step, too, wherever they lie: the steps of `reference`, a volume
    without tiles, are taken off on both sides by comparing with its own ratio.

    Returns
    -------
    float
        Root mean square step where any two tiles overlap, relative to where none do, divided by the
        same of the reference.
    """
    units = list_units((1, 1, *volume.shape), tiling.tile, tiling.halo)

    def ratio(values):
        near, far = [], []
        for axis, name in ((1, "y"), (2, "x")):
            windows = {(getattr(u.tile, name).start, getattr(u.tile, name).stop) for u in units}
            position = np.arange(values.shape[axis] - 1)
            covering = sum((position >= a) & (position + 1 < b) for a, b in windows)
            # An edge of a tile is a step that lies in one tile less than its neighbours.
            steps = np.square(np.diff(values, axis=axis)).mean(axis=tuple({0, 1, 2} - {axis}))
            near.append(steps[covering != 1])
            far.append(steps[covering == 1])
        return np.sqrt(np.concatenate(near).mean() / np.concatenate(far).mean())

    return ratio(volume) / ratio(reference)


def edge_ratio(volume, tiling, reference):
    """Compare the steps across the edges of tiles with the steps along all other lines.

    The difference of the two volumes has no structures of the sample in it. A seam is a step of one
    sign along a line there, so that the mean step of each line is taken before the squares.

    Returns
    -------
    float
        Root mean square of the mean steps at edges, relative to that elsewhere, which counts as no
        less than 3 % of the typical step from pixel to pixel.
    """
    difference = volume - reference
    units = list_units((1, 1, *volume.shape), tiling.tile, tiling.halo)
    at_edges, elsewhere, typical = [], [], []
    for axis, name in ((1, "y"), (2, "x")):
        ends = {
            end for u in units for end in (getattr(u.tile, name).start, getattr(u.tile, name).stop)
        }
        is_edge = np.isin(np.arange(1, volume.shape[axis]), list(ends))
        lines = np.square(np.diff(difference, axis=axis).mean(axis=3 - axis)).mean(axis=0)
        at_edges.append(lines[is_edge])
        elsewhere.append(lines[~is_edge])
        typical.append(np.square(np.diff(reference, axis=axis)).mean())
    floor = 0.03 * np.sqrt(np.mean(typical))
    usual = max(np.sqrt(np.concatenate(elsewhere).mean()), floor)
    return float(np.sqrt(np.concatenate(at_edges).mean()) / usual)


def test_the_tiling_under_test_has_nine_tiles():
    assert len(list_units((1, 1, *SHAPE), TILED.tile, TILED.halo)) == 9
    assert len(list_units((1, 1, *SHAPE), WHOLE.tile, WHOLE.halo)) == 1


@pytest.mark.parametrize("method", ["interpolation", "richardson_lucy"])
def test_methods_of_one_pixel_agree_exactly(sample, method):
    tiled, whole = (sample.volume(method, tiling) for tiling in (TILED, WHOLE))
    np.testing.assert_allclose(tiled, whole, rtol=1e-5, atol=1e-5 * whole.max())


# Differences relative to the posterior standard deviation, which is what the noise leaves open.
@pytest.mark.parametrize(
    ("method", "most"),
    [("spectral", 0.1), ("variational", 0.1), *((method, 1.0) for method in LEARNED)],
)
def test_tiled_and_untiled_agree_within_the_noise(sample, method, most):
    tiled, whole = (sample.volume(method, tiling) for tiling in (TILED, WHOLE))
    uncertainty = standard_deviation(sample)
    share = np.sqrt(np.square(tiled - whole).mean()) / uncertainty
    assert share < most


def standard_deviation(sample):
    stores = open_units([sample.units("spectral", WHOLE)])
    return float(np.sqrt(np.square(np.asarray(stores.arrays["std"][0])).mean()))


@pytest.mark.parametrize("method", ["spectral", "variational", *LEARNED])
def test_no_step_betrays_a_border(sample, method):
    tiled, whole = (sample.volume(method, tiling) for tiling in (TILED, WHOLE))
    assert step_ratio(tiled, TILED, whole) < MOST_STEP
    assert edge_ratio(tiled, TILED, whole) < MOST_EDGE


@pytest.mark.parametrize("method", ["spectral", "variational", *LEARNED])
def test_tiles_side_by_side_would_be_found(sample, method):
    """The same tiles without blending: every pixel is of the last tile that covers it."""
    whole, seamed = sample.volume(method, WHOLE), np.empty(SHAPE, np.float32)
    arrays = open_units([sample.units(method, TILED)]).arrays["volume"]
    rng = np.random.default_rng(0)
    for unit in list_units((1, 1, *SHAPE), TILED.tile, TILED.halo):
        # Tiles of these methods are nearly equal where they overlap; an offset of half a standard
        # deviation of the posterior makes them differ.
        offset = 0.5 * standard_deviation(sample) * rng.choice([-1, 1])
        seamed[:, unit.tile.y, unit.tile.x] = np.asarray(arrays[unit.index]) + offset
    assert edge_ratio(seamed, TILED, whole) > MOST_EDGE

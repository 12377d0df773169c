"""Checks that phantoms are reproducible, fill their field sparsely, and differ between seeds."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

import draw_phantom as draw_phantom_script
from besselflow.phantoms import PHANTOMS, draw_cells, draw_neuron, draw_phantom, draw_vessels

SHAPE = (32, 48, 40)
SCRIPT = Path(__file__).parents[1] / "scripts" / "draw_phantom.py"


@pytest.mark.parametrize("kind", PHANTOMS)
def test_same_seed_gives_the_same_volume(kind):
    first, second = (draw_phantom(kind, SHAPE, seed=11) for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("kind", PHANTOMS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_volume_is_float32_with_peak_one_and_a_dim_background(kind, seed):
    volume = draw_phantom(kind, SHAPE, seed)
    assert volume.dtype == np.float32
    assert volume.shape == SHAPE
    assert volume.max() == 1
    assert 0.002 < volume.min() < 0.04
    assert 0.004 < np.percentile(volume, 10) < 0.04


@pytest.mark.parametrize("kind", PHANTOMS)
@pytest.mark.parametrize("seed", [3, 4])
def test_structures_are_sparse_and_reach_all_parts_of_the_field(kind, seed):
    volume = draw_phantom(kind, (48, 64, 64), seed)
    bright = volume > 0.1
    assert 0.005 < bright.mean() < 0.45
    for part in np.split(bright, 4, axis=0):
        assert part.any()
    for half in np.split(bright, 2, axis=1):
        for quarter in np.split(half, 2, axis=2):
            assert quarter.any()


@pytest.mark.parametrize("kind", PHANTOMS)
def test_edges_are_soft_as_a_microscope_shows_them(kind):
    volume = draw_phantom(kind, SHAPE, seed=5)
    steps = [np.abs(np.diff(volume, axis=axis)).max() for axis in range(3)]
    assert max(steps) < 0.6
    power = np.abs(np.fft.fftn(volume - volume.mean())) ** 2
    frequency = np.stack(np.meshgrid(*(np.fft.fftfreq(n) for n in SHAPE), indexing="ij"))
    radius = np.linalg.norm(frequency, axis=0)
    assert power[radius > 0.45].sum() < 0.01 * power.sum()


@pytest.mark.parametrize("kind", PHANTOMS)
def test_brightness_varies_within_the_structures(kind):
    volume = draw_phantom(kind, SHAPE, seed=6)
    inside = volume[volume > 0.15]
    assert inside.std() / inside.mean() > 0.15


@pytest.mark.parametrize("kind", PHANTOMS)
def test_seeds_differ_in_place_and_in_amount(kind):
    volumes = [draw_phantom(kind, SHAPE, seed) for seed in range(5)]
    share = np.array([(v > 0.1).mean() for v in volumes])
    assert share.max() > 1.5 * share.min()
    for first, second in itertools.pairwise(volumes):
        correlation = np.corrcoef(first.ravel(), second.ravel())[0, 1]
        assert abs(correlation) < 0.5


def test_kinds_differ_for_one_seed():
    vessels, neuron, cells = (draw_phantom(kind, SHAPE, 1) for kind in PHANTOMS)
    assert not np.array_equal(vessels, neuron)
    assert not np.array_equal(neuron, cells)


def correlation_length_um(volume, axis, spacing_um):
    """Lag at which the autocorrelation along an axis has fallen to one half."""
    centred = volume - volume.mean()
    n = volume.shape[axis]
    spectrum = np.abs(np.fft.fft(centred, 2 * n, axis=axis)) ** 2
    other = tuple(a for a in range(3) if a != axis)
    autocorrelation = np.fft.ifft(spectrum.sum(axis=other)).real[:n]
    below = np.flatnonzero(autocorrelation < 0.5 * autocorrelation[0])[0]
    return below * spacing_um


def test_sizes_are_in_micrometres_along_every_axis():
    coarse = draw_cells((30, 60, 60), 9, (2, 1, 1), radius_um=5)
    along_z = correlation_length_um(coarse, 0, 2.0)
    along_x = correlation_length_um(coarse, 2, 1.0)
    assert along_z == pytest.approx(along_x, abs=2.5)


def test_parameters_control_what_is_drawn():
    few = draw_vessels(SHAPE, 2, spacing_um=18, capillary_radius_um=1)
    many = draw_vessels(SHAPE, 2, spacing_um=6, capillary_radius_um=1)
    assert (many > 0.1).mean() > 1.5 * (few > 0.1).mean()
    bare, spiny = (draw_neuron(SHAPE, 2, spines_per_um=d) for d in (1e-6, 1.0))
    assert (spiny > 0.1).sum() > (bare > 0.1).sum()
    loose, crowded = (draw_cells(SHAPE, 2, radius_um=3, crowding=c) for c in (0.03, 0.2))
    assert (crowded > 0.1).mean() > 2 * (loose > 0.1).mean()


@pytest.mark.parametrize("kind", PHANTOMS)
def test_a_single_slice_can_be_drawn(kind):
    assert draw_phantom(kind, (1, 40, 40), 0).shape == (1, 40, 40)


def test_an_unknown_kind_names_the_choices():
    with pytest.raises(ValueError, match="choose one of vessels, neuron, cells"):
        draw_phantom("bones", SHAPE, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((10, 10), 0), "three positive whole numbers"),
        (((10, 0, 10), 0), "three positive whole numbers"),
        ((SHAPE, -1), "seed must be a whole number"),
        ((SHAPE, 0, (1, 1, 0)), "three positive numbers"),
        ((SHAPE, 0, (1, 1)), "three positive numbers"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_phantom("cells", *arguments)


@pytest.mark.parametrize(
    ("draw", "options"),
    [
        (draw_vessels, {"spacing_um": 0}),
        (draw_neuron, {"tip_radius_um": -1}),
        (draw_neuron, {"size": float("nan")}),
        (draw_cells, {"crowding": 0.9}),
        (draw_cells, {"radius_um": 0}),
    ],
)
def test_wrong_lengths_are_refused(draw, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        draw(SHAPE, 0, **options)


def run(*arguments):
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_command_line_writes_the_same_volume_with_its_voxel_size(tmp_path):
    out = tmp_path / "deep" / "cells.ome.tif"
    options = ["--shape", 8, 24, 20, "--seed", 3, "--voxel-size", 2, 0.5, 0.25]
    done = run("cells", *options, "--out", out)
    assert done.returncode == 0, done.stderr
    expected = draw_phantom("cells", (8, 24, 20), 3, (2, 0.5, 0.25))
    assert np.array_equal(tifffile.imread(out), expected)
    with tifffile.TiffFile(out) as tif:
        assert 'PhysicalSizeZ="2.0"' in tif.ome_metadata
        assert 'PhysicalSizeX="0.25"' in tif.ome_metadata
    assert [path.name for path in out.parent.iterdir()] == ["cells.ome.tif"]


def test_command_line_explains_a_mistake_in_one_sentence(tmp_path):
    failed = run("bones", "--shape", 8, 8, 8, "--out", tmp_path / "a.ome.tif")
    assert failed.returncode == 2
    assert failed.stderr.splitlines() == [
        'draw_phantom.py: error: phantom "bones" is unknown; choose one of vessels, neuron, cells'
    ]
    with pytest.raises(ValueError, match=r"must end in .ome.tif"):
        draw_phantom_script.main("cells", (8, 8, 8), 0, (1, 1, 1), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())

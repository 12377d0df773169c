"""The training acquisitions of the prior: what is imaged, with which beam, and how it is named."""

from dataclasses import replace
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import tifffile

import simulate_training
from besselflow.beam import box_profile
from besselflow.config import Inr, Spectral, Tiling
from besselflow.diffusion.geometry import Geometry
from besselflow.diffusion.simulation import SimulatedAcquisition
from besselflow.landmarks import landmarks
from besselflow.projection import AxialGrid
from besselflow.store import Projections, UnitWriter, write_projections
from besselflow.tiling import list_units
from simulate_training import OwnVolume, TrainingStack, main, source_of, training_volumes

pytestmark = pytest.mark.usefixtures("one_thread")
VOXEL = (1.0, 0.5, 0.5)
GEOMETRY = Geometry.of(box_profile(6.0), np.array([2.5, 8.5, 14.5]), VOXEL)
INR = Inr(width=8, depth=1, features=8, steps=5, columns=32, checkpoint_seconds=1e-9)
SEED = 3


def write_stack(path, channels=1):
    """Write a volume that gets brighter with depth, on an offset of 100 counts."""
    z = np.arange(12.0)[:, None, None]
    counts = (100 + 50 * z + np.zeros((channels, 12, 10, 10))).astype(np.uint16)
    counts += 7 * np.arange(channels, dtype=np.uint16)[:, None, None, None]
    counts = counts[0] if channels == 1 else counts
    tifffile.imwrite(
        path, counts, photometric="minisblack", metadata={"axes": "CZYX"[-counts.ndim :]}
    )
    return counts


@pytest.mark.parametrize("geometry", [None, GEOMETRY], ids=["any beam", "one beam"])
def test_phantoms_are_drawn_by_their_number(geometry, tmp_path, monkeypatch):
    monkeypatch.setattr(simulate_training, "_PHANTOM_SHAPE", (26, 16, 16))
    volumes, beams = {}, set()
    for number in range(6):
        ((name, (volume, origin)),) = training_volumes(number, geometry, SEED).items()
        volumes[name] = volume
        assert volume.shape == (26, 16, 16)
        assert origin.digest == "" and not len(origin.landmarks)
        folder = tmp_path / f"phantom-{number}"
        main(number, geometry, Spectral(), INR, SEED, 1, folder)
        assert [path.name for path in folder.iterdir()] == [f"{name}.npz"]
        found = SimulatedAcquisition.load(folder / f"{name}.npz")
        factor = found.truth.max() / volume.max()
        np.testing.assert_allclose(found.truth, factor * volume, rtol=2e-3, atol=1e-6)
        beams.add(tuple(np.round(np.sort(found.matrix.max(axis=1)), 3)))
        np.testing.assert_allclose(np.diff(found.centres_um), 1.0)
    assert [name.split()[1] for name in volumes] == ["vessels", "neuron", "cells"] * 2
    assert len(volumes) == 6 and len(beams) > 1
    assert {path.name for path in tmp_path.iterdir()} == {f"phantom-{n}" for n in range(6)}
    ((name, (again, _)),) = training_volumes(5, geometry, SEED).items()
    np.testing.assert_array_equal(again, volumes[name])
    assert set(training_volumes(5, geometry, SEED + 1)).isdisjoint(volumes)


def test_training_volumes_are_brought_to_the_voxels_of_the_geometry(tmp_path):
    counts = write_stack(tmp_path / "t.tif", channels=2)
    stack = TrainingStack("t", tmp_path / "t.tif", (1.0, 1.0, 1.0), 100.0)
    volumes_of = lambda voxel: training_volumes(  # noqa: E731
        stack, replace(GEOMETRY, voxel_size_um=voxel), SEED
    )
    same, fine = volumes_of((1.0, 1.0, 1.0)), volumes_of((0.5, 1.0, 2.0))
    assert list(same) == list(fine) == ["t channel 0", "t channel 1"]
    np.testing.assert_array_equal(same["t channel 1"][0], counts[1] - 100.0)
    volume = fine["t channel 0"][0]
    assert volume.shape == (24, 10, 5)
    np.testing.assert_allclose(volume[:, 3, 3], np.linspace(0, 550, 24), rtol=1e-4)
    # What tells a leak is the voxels of the file, whatever becomes of them.
    digests = [[origin.digest for _, origin in found.values()] for found in (same, fine)]
    assert digests[0] == digests[1] and len({"", *digests[0]}) == 3


def test_landmarks_are_those_of_the_file(tmp_path):
    """Whatever becomes of its voxels; they stay with what is learnt from."""
    counts = np.random.default_rng(0).integers(90, 900, (12, 32, 32)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "t.tif", counts, photometric="minisblack")
    stack = TrainingStack("t", tmp_path / "t.tif", (1.0, 1.0, 1.0), 100.0)
    main(stack, replace(GEOMETRY, voxel_size_um=(1.0, 2.0, 1.0)), Spectral(), INR, 0, 1, tmp_path)
    found = SimulatedAcquisition.load(tmp_path / "t.npz")
    assert found.truth.shape == (12, 16, 32)
    expected = np.unique(np.concatenate([landmarks(image) for image in counts]))
    assert len(expected) > 200 and found.landmarks.dtype == np.uint64
    np.testing.assert_array_equal(found.landmarks, expected[:1024])


def test_rows_and_numbers_become_sources(tmp_path):
    row = {"name": "t", "voxel_size_um": [1, 2, 3], "offset": None}
    expected = TrainingStack("t", tmp_path / "t.tif", (1, 2, 3), None)
    assert source_of(row, {"volume": str(tmp_path / "t.tif")}) == expected
    assert source_of(7, {}) == 7
    own = {"name": "s", "axis": "x", "tiling": {"tile": 64}}
    inputs = {"projections": "p.zarr", "units": ["a.zarr", "b.zarr"]}
    units = (Path("a.zarr"), Path("b.zarr"))
    assert source_of(own, inputs) == OwnVolume("s", "x", Path("p.zarr"), units, Tiling(tile=64))


def write_own_inr(folder, channels):
    """Write a sample of 3 time points whose INR tells time, channel and place of every voxel."""
    shape, grid = (3, channels, 2, 10, 14), AxialGrid(0.0, VOXEL[0], 12)
    data = da.zeros(shape, dtype="float32", chunks=(1, 1, *shape[2:]))
    measured = Projections(data, np.array([2.5, 8.5]), box_profile(6.0), grid, VOXEL[1:], "photons")
    write_projections(folder / "projections.zip", measured)
    units = list_units(shape, tile=256, halo=2)
    z, y, x = np.meshgrid(np.arange(12), np.arange(10), np.arange(14), indexing="ij")
    place = (1 + z + 100 * y + 10000 * x).astype(np.float32)
    with UnitWriter(folder / "inr.zarr", units, (12, 10, 14)) as writer:
        for unit in units:
            writer.write(unit, {}, volume=(10 * unit.t + unit.c + 1) * place)
    return place


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("axis", ["y", "x"])
def test_a_sample_is_seen_along_its_lateral_axes(tmp_path, axis, channels):
    place = write_own_inr(tmp_path, channels)
    units = (tmp_path / "inr.zarr",)
    source = OwnVolume("s", axis, tmp_path / "projections.zip", units, Tiling(halo=2))
    # The voxels of the turned volume: what was wide along z is wide along the axis now.
    turned = {"y": (0.5, 1.0, 0.5), "x": (0.5, 0.5, 1.0)}[axis]
    found = training_volumes(source, replace(GEOMETRY, voxel_size_um=turned), SEED)
    assert len(found) == channels
    for channel, (name, (volume, origin)) in enumerate(found.items()):
        expected = (11 + channel) * np.swapaxes(place, 0, {"y": 1, "x": 2}[axis])
        np.testing.assert_array_equal(volume, expected)
        assert name.startswith(f"s (its own INR along {axis})") and origin.digest == ""
    # On the voxels of the sample itself, half as many slices remain of the finer axis.
    resampled = training_volumes(source, GEOMETRY, SEED)
    for volume, _ in resampled.values():
        assert volume.shape == {"y": (5, 24, 14), "x": (7, 10, 24)}[axis]


def test_own_volumes_become_training_acquisitions(tmp_path):
    write_own_inr(tmp_path, 1)
    units = (tmp_path / "inr.zarr",)
    source = OwnVolume("s", "y", tmp_path / "projections.zip", units, Tiling(halo=2))
    main(source, GEOMETRY, Spectral(), INR, SEED, 1, tmp_path / "own")
    (path,) = (tmp_path / "own").iterdir()
    found = SimulatedAcquisition.load(path)
    ((volume, _),) = training_volumes(source, GEOMETRY, SEED).values()
    np.testing.assert_allclose(
        found.truth, volume * (found.truth.max() / volume.max()), rtol=2e-3, atol=1e-5
    )
    assert found.projections.shape[1:] == volume.shape[1:]


@pytest.mark.parametrize("channels", [1, 2])
def test_every_channel_of_a_stack_is_imaged(tmp_path, channels):
    counts = write_stack(tmp_path / "t.tif", channels).reshape(channels, 12, 10, 10)
    folder = tmp_path / "train-t.1"
    main(
        TrainingStack("t.1", tmp_path / "t.tif", VOXEL, 100.0),
        GEOMETRY,
        Spectral(),
        INR,
        SEED,
        1,
        folder,
    )
    names = ["t.1"] if channels == 1 else ["t.1 channel 0", "t.1 channel 1"]
    assert sorted(path.stem for path in folder.iterdir()) == names
    found = [SimulatedAcquisition.load(folder / f"{name}.npz") for name in names]
    for each, own in zip(found, counts, strict=True):
        light = own - 100.0
        np.testing.assert_allclose(each.truth, light * (each.truth.max() / light.max()), rtol=2e-3)
    assert len({"", *(each.digest for each in found)}) == channels + 1
    # Another name, other noise.
    if channels == 2:
        assert found[0].noise != found[1].noise
    assert {path.name for path in tmp_path.iterdir()} == {"t.tif", "train-t.1"}


def test_another_acquisition_of_a_stack_has_other_noise_and_another_brightness(tmp_path):
    write_stack(tmp_path / "t.tif")
    found = []
    for number in (1, 2):
        stack = TrainingStack("t", tmp_path / "t.tif", VOXEL, 100.0, number)
        main(stack, GEOMETRY, Spectral(), INR, SEED, 1, tmp_path / f"train{number}-t")
        (path,) = (tmp_path / f"train{number}-t").iterdir()
        assert path.stem == ("t" if number == 1 else "t acquisition 2")
        found.append(SimulatedAcquisition.load(path))
    assert found[0].digest == found[1].digest != ""
    assert found[0].noise != pytest.approx(found[1].noise, rel=1e-3)


def test_checkpoints_of_samples_with_dots_in_their_names_are_their_own(tmp_path, monkeypatch):
    used = []

    def simulate(volume, beam, seed, spectral, inr, checkpoint, device, label):
        used.append(checkpoint)
        raise KeyboardInterrupt

    monkeypatch.setattr(simulate_training, "simulate_acquisition", simulate)
    write_stack(tmp_path / "t.tif")
    for name in ("mouse.1", "mouse.2"):
        stack = TrainingStack(name, tmp_path / "t.tif", VOXEL, 100.0)
        with pytest.raises(KeyboardInterrupt):
            main(stack, GEOMETRY, Spectral(), INR, SEED, 1, tmp_path / f"train-{name}")
    assert len(set(used)) == 2

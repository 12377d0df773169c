"""Checks the stores of volumes and projections: what we and other programs read from them."""

import zipfile
from dataclasses import replace

import dask.array as da
import numpy as np
import ome_zarr_models.v05
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader

from besselflow.beam import AxialProfile, box_profile
from besselflow.errors import InputError
from besselflow.projection import AxialGrid
from besselflow.store import (
    Projections,
    arrays,
    open_projections,
    open_volume,
    pyramid_factors,
    write_projections,
    write_volume,
)
from besselflow.tiling import list_units

ORIGIN = (-4.5, 10.0, 20.0)


def random_volume(*shape):
    return np.random.default_rng(0).normal(100, 20, shape).astype(np.float32)


def write(path, volume, voxel, origin=ORIGIN, chunks=(1, 1, -1, 50, 70)):
    lazy = da.from_array(volume, chunks=chunks)
    write_volume(path, lazy, voxel, origin, "mouse 3 spectral", {"method": "spectral", "unit": "x"})


def halve(volume, factors):
    """Average blocks of (1, 1, *factors), dropping what is over."""
    z, y, x = (n // f for n, f in zip(volume.shape[2:], factors, strict=True))
    kept = volume[:, :, : z * factors[0], : y * factors[1], : x * factors[2]]
    blocks = kept.reshape(*volume.shape[:2], z, factors[0], y, factors[1], x, factors[2])
    return blocks.mean(axis=(3, 5, 7))


# Voxel size, lateral size, and slices of each level of a volume of 12 slices.
PYRAMIDS = {
    "isotropic": ((0.8, 0.8, 0.8), 192, [12, 6, 3]),
    "thick slices": ((3.0, 0.5, 0.5), 192, [12, 12, 12]),
    "a little thick": ((1.0, 0.5, 0.5), 192, [12, 12, 6]),
    "thin slices": ((0.2, 1.0, 1.0), 192, [12, 6, 3]),
}


@pytest.fixture(scope="module", params=PYRAMIDS)
def pyramid(request, tmp_path_factory):
    voxel, edge, slices = PYRAMIDS[request.param]
    path = tmp_path_factory.mktemp("pyramid") / "volume.ome.zarr"
    volume = random_volume(2, 2, 12, edge, edge - 64)
    write(path, volume, voxel)
    return path, volume, voxel, slices


def test_volume_is_a_valid_ome_zarr_image(pyramid):
    path, _, voxel, slices = pyramid
    image = ome_zarr_models.v05.Image.from_zarr(zarr.open_group(str(path), mode="r"))
    (multiscale,) = image.ome_attributes.multiscales
    assert multiscale.name == "mouse 3 spectral"
    axes = [(axis.name, axis.type, axis.unit) for axis in multiscale.axes]
    assert axes == [
        ("t", "time", None),
        ("c", "channel", None),
        *((name, "space", "micrometer") for name in "zyx"),
    ]
    z_factor = 1
    assert len(multiscale.datasets) == len(slices)
    for level, dataset in enumerate(multiscale.datasets):
        z_factor = 12 // slices[level]
        factors = np.array([z_factor, 2**level, 2**level])
        scale, translation = dataset.coordinateTransformations
        assert scale.scale == pytest.approx([1, 1, *(factors * voxel)])
        # The first voxel's centre lies amid the centres of the voxels that it averages.
        centre = np.array(ORIGIN) + (factors - 1) / 2 * voxel
        assert translation.translation == pytest.approx([0, 0, *centre])


def test_ome_zarr_py_reads_every_level(pyramid):
    path, volume, _, slices = pyramid
    location = parse_url(str(path))
    assert location is not None
    (node,) = Reader(location)()
    assert [axis["name"] for axis in node.metadata["axes"]] == list("tczyx")
    assert len(node.data) == len(slices)
    expected = volume
    for level, found in enumerate(node.data):
        if level:
            expected = halve(expected, (slices[level - 1] // slices[level], 2, 2))
        assert found.shape == expected.shape and found.dtype == np.float32
        np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-5)
        assert np.asarray(found).mean() == pytest.approx(volume.mean(), rel=1e-5)


def test_volume_opens_as_it_was_written(pyramid):
    path, volume, voxel, _ = pyramid
    opened = open_volume(path)
    np.testing.assert_array_equal(np.asarray(opened.data), volume)
    assert opened.voxel_size_um == pytest.approx(voxel)
    assert opened.origin_um == pytest.approx(ORIGIN)
    assert opened.attributes == {"method": "spectral", "unit": "x"}
    coarsest = open_volume(path, level=-1)
    assert max(coarsest.data.shape[3:]) <= 64
    assert coarsest.voxel_size_um[1] > opened.voxel_size_um[1]


def test_display_window_holds_the_intensities(tmp_path):
    volume = random_volume(1, 2, 4, 40, 40)
    volume[:, 1] *= 10
    write(tmp_path / "v", volume, (1, 1, 1))
    channels = zarr.open_group(str(tmp_path / "v"), mode="r").attrs["ome"]["omero"]["channels"]
    for channel, values in zip(channels, volume[0], strict=True):
        window = channel["window"]
        assert window["max"] == pytest.approx(values.max())
        assert values.min() <= window["start"] < np.median(values) < window["end"] <= values.max()


@pytest.mark.parametrize("shape", [(1, 1, 1, 3, 2), (1, 1, 5, 65, 1), (1, 2, 7, 33, 131)], ids=str)
def test_odd_shapes(tmp_path, shape):
    volume = random_volume(*shape)
    write(tmp_path / "v", volume, (1.0, 1.0, 1.0))
    ome_zarr_models.v05.Image.from_zarr(zarr.open_group(str(tmp_path / "v"), mode="r"))
    np.testing.assert_array_equal(np.asarray(open_volume(tmp_path / "v").data), volume)
    assert 0 not in open_volume(tmp_path / "v", level=-1).data.shape


def test_large_volume_is_a_few_files_with_one_writer_each(tmp_path):
    volume = random_volume(1, 1, 3, 700, 530)
    # Blocks that match neither chunks nor shards corrupt a store that is written in parallel.
    write(tmp_path / "v", volume, (1, 1, 1), chunks=(1, 1, 2, 190, 333))
    np.testing.assert_array_equal(np.asarray(open_volume(tmp_path / "v").data), volume)
    pieces = [p for p in (tmp_path / "v" / "0").rglob("*") if p.is_file() and p.name != "zarr.json"]
    assert len(pieces) == 1


@given(
    st.tuples(st.integers(1, 200), st.integers(1, 3000), st.integers(1, 3000)),
    st.tuples(st.floats(0.1, 10), st.floats(0.1, 2), st.floats(0.1, 2)),
)
@settings(max_examples=200)
def test_pyramids_end_small_and_become_no_less_isotropic(shape, voxel):
    for _ in range(20):
        factors = pyramid_factors(shape, list(voxel))
        if factors is None:
            break
        most = 4 if max(shape[1:]) > 1024 else 2
        assert factors[1:] == (min(most, shape[1]), min(most, shape[2]))
        before, lateral = voxel[0], np.sqrt(voxel[1] * voxel[2] * factors[1] * factors[2])
        possible = [f for f in (1, 2, 4) if f <= min(most, shape[0])]
        distances = {f: abs(np.log(before * f / lateral)) for f in possible}
        assert distances[factors[0]] <= min(distances.values()) + 1e-9
        shape = tuple(n // f for n, f in zip(shape, factors, strict=True))
        voxel = tuple(v * f for v, f in zip(voxel, factors, strict=True))
        assert min(shape) >= 1
    assert max(shape[1:]) <= 64


def test_failing_volume_leaves_the_old_one(tmp_path):
    path, old = tmp_path / "v", random_volume(1, 1, 2, 8, 8)
    write(path, old, (1, 1, 1))

    def fail(block):
        raise RuntimeError("no more memory")

    broken = da.map_blocks(fail, da.zeros((1, 1, 2, 8, 8)), dtype=float, meta=np.empty(0))
    with pytest.raises(RuntimeError, match="no more memory"):
        write_volume(path, broken, (1, 1, 1), (0, 0, 0), "new", {})
    np.testing.assert_array_equal(np.asarray(open_volume(path).data), old)
    assert [p.name for p in tmp_path.iterdir()] == ["v"]


KERNEL = np.outer([0.25, 0.5, 0.25], [0.1, 0.2, 0.4, 0.2, 0.1])


@pytest.mark.parametrize("kernel", [None, KERNEL], ids=["sharp", "blurred"])
@pytest.mark.parametrize("shape", [(2, 3, 5, 30, 41), (1, 1, 70, 9, 300)], ids=str)
def test_projections_round_trip(tmp_path, shape, kernel):
    data = random_volume(*shape)
    profile = AxialProfile(np.array([-2.0, -0.5, 1.0]), np.array([0.25, 0.75]), "beam.csv")
    written = Projections(
        data=da.from_array(data, chunks=(1, 2, 2, 11, 17)),
        positions_um=1.1 + 2.3 * np.arange(shape[2]),
        profile=profile,
        grid=AxialGrid(-1.5, 0.5, 17 + 5 * shape[2]),
        pixel_size_um=(0.4, 0.3),
        unit="photons",
        attributes={"sample": "mouse", "scale": [[3.5]]},
        lateral_kernel=kernel,
    )
    write_projections(tmp_path / "p.zip", written)
    found = open_projections(tmp_path / "p.zip")
    assert found.data.dtype == np.float32
    np.testing.assert_array_equal(np.asarray(found.data), data)
    np.testing.assert_array_equal(found.positions_um, written.positions_um)
    np.testing.assert_array_equal(found.profile.edges_um, profile.edges_um)
    np.testing.assert_array_equal(found.profile.weights, profile.weights)
    assert found.profile.source == "beam.csv"
    assert found.grid == written.grid
    assert found.voxel_size_um == (0.5, 0.4, 0.3)
    assert (found.unit, found.attributes) == ("photons", written.attributes)
    np.testing.assert_array_equal(found.operator.matrix, written.operator.matrix)
    if kernel is None:
        assert found.lateral_kernel is None and found.operator.lateral is None
    else:
        np.testing.assert_array_equal(found.lateral_kernel, kernel)
        np.testing.assert_array_equal(found.operator.lateral.kernel, kernel)
    unit = list_units(shape, 8, 2)[-1]
    np.testing.assert_array_equal(
        found.unit_data(unit), data[unit.t, unit.c, :, unit.tile.y, unit.tile.x]
    )
    array = zarr.open_group(arrays.open_store(tmp_path / "p.zip"), mode="r")["intensity"]
    assert array.metadata.dimension_names == (
        "t",
        "c",
        "p",
        "y",
        "x",
    )


def acquisition(lateral_kernel=None, shape=(1, 1, 2, 30, 20)):
    return Projections(
        data=da.zeros(shape, dtype="float32"),
        positions_um=np.array([1.5, 6.5]),
        profile=box_profile(2.0),
        grid=AxialGrid(0.0, 1.0, 10),
        pixel_size_um=(1.0, 1.0),
        unit="photons",
        lateral_kernel=lateral_kernel,
    )


@pytest.mark.parametrize("edge", [40, 90, 300], ids=["eight", "few", "one"])
def test_every_image_is_computed_once_however_large(tmp_path, monkeypatch, edge):
    monkeypatch.setattr(arrays, "_BLOCK_VOXELS", 8 * 40**2 + 2 * 90**2)
    computed = []

    def correct(block, block_info=None):
        computed.append(block_info[0]["chunk-location"])
        return block + 1

    counts = da.zeros((2, 1, 19, edge, edge), chunks=(1, 1, 1, edge, edge), dtype=np.float32)
    images = counts.map_blocks(correct, dtype=np.float32, meta=np.empty((0,) * 5, np.float32))
    written = replace(acquisition(shape=(2, 1, 19, edge, edge)), data=images)
    write_projections(tmp_path / "p.zip", written)
    assert len(computed) == len(set(computed)) == 2 * 19
    assert (np.asarray(open_projections(tmp_path / "p.zip").data) == 1).all()


def test_stores_of_earlier_versions_still_open(tmp_path):
    """They were folders, and the first had no lateral kernel."""
    write_projections(tmp_path / "p.zip", acquisition())
    with zipfile.ZipFile(tmp_path / "p.zip") as archive:
        archive.extractall(tmp_path / "p.zarr")
    group = zarr.open_group(str(tmp_path / "p.zarr"), mode="r+")
    values = dict(group.attrs["besselflow"])
    del values["lateral_kernel"]
    group.attrs["besselflow"] = values
    assert open_projections(tmp_path / "p.zarr").lateral_kernel is None


def test_slices_that_no_projection_sees_are_known(tmp_path):
    measured = acquisition()
    assert measured.unseen_slices == [0, 3, 4, 5, 8, 9]
    lazy, attributes = da.zeros((1, 1, 10, 4, 4)), {"unseen_slices": measured.unseen_slices}
    write_volume(tmp_path / "v", lazy, (1, 1, 1), (0, 0, 0), "", attributes)
    assert open_volume(tmp_path / "v").unseen_slices == measured.unseen_slices
    write_volume(tmp_path / "v", lazy, (1, 1, 1), (0, 0, 0), "", {})
    assert open_volume(tmp_path / "v").unseen_slices == []


def test_blur_that_reaches_beyond_the_halo_is_refused():
    measured = acquisition(KERNEL)
    tiled = list_units(measured.data.shape, 8, 2)
    with pytest.raises(InputError, match=r"reaches 2 pixels.*tiling.halo to at least 3"):
        measured.check_halo(tiled, 2)
    measured.check_halo(list_units(measured.data.shape, 8, 3), 3)
    measured.check_halo(list_units(measured.data.shape, 30, 2), 2)
    acquisition().check_halo(tiled, 2)


@pytest.mark.parametrize("name", ["v.ome.zarr", "v.ozx"], ids=["folder", "file"])
@pytest.mark.parametrize(
    "chunks", [(1, 1, 1, 300, 260), (2, 1, -1, 77, 131)], ids=["planes", "columns"]
)
def test_volumes_are_written_block_by_block(tmp_path, monkeypatch, name, chunks):
    monkeypatch.setattr(arrays, "_BLOCK_VOXELS", 16 * 300 * 128)
    volume = random_volume(2, 1, 37, 300, 260)
    # A chunk that holds nothing is not stored.
    volume[0, 0, :16, :128, :128] = 0
    write(tmp_path / name, volume, (1.0, 1.0, 1.0), chunks=chunks)
    np.testing.assert_array_equal(np.asarray(open_volume(tmp_path / name).data), volume)
    coarser = np.asarray(open_volume(tmp_path / name, 1).data)
    np.testing.assert_allclose(coarser, halve(volume, (2, 2, 2)), rtol=1e-5)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    # The group, and for each of three levels its metadata and a shard per time point.
    assert len(files) == (1 if name.endswith(".ozx") else 1 + 3 * (1 + 2))


def test_a_packed_volume_is_a_zip_file_whose_entries_are_an_ome_zarr(tmp_path):
    volume = random_volume(1, 1, 5, 70, 60)
    write(tmp_path / "v.ozx", volume, (1.0, 1.0, 1.0))
    with zipfile.ZipFile(tmp_path / "v.ozx") as archive:
        names = archive.namelist()
        assert len(set(names)) == len(names) and "zarr.json" in names
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
        archive.extractall(tmp_path / "v.ome.zarr")
    (node,) = Reader(parse_url(str(tmp_path / "v.ome.zarr")))()
    np.testing.assert_array_equal(np.asarray(node.data[0]), volume)

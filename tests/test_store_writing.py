"""Checks how stores are written: whole or not at all, and every chunk by one writer only."""

import errno
import os
import platform
import signal
import subprocess
import sys
import threading
import time

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore

from besselflow.errors import InputError
from besselflow.store import UnitWriter, arrays, atomic_path, open_units, write_json
from besselflow.tiling import list_units, units_of_shard


@pytest.mark.parametrize("folder", [True, False], ids=["folder", "file"])
def test_atomic_path(tmp_path, folder):
    path = tmp_path / "deep" / "out"

    def fill(temporary, text):
        target = temporary
        if folder:
            temporary.mkdir()
            target = temporary / "content"
        target.write_text(text)

    def content():
        return (path / "content" if folder else path).read_text()

    with atomic_path(path) as temporary:
        fill(temporary, "first")
        assert not path.exists()
    assert content() == "first"
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        fill(temporary, "half")
        raise KeyboardInterrupt
    assert content() == "first"
    with atomic_path(path) as temporary:
        fill(temporary, "second")
        assert content() == "first"
    assert content() == "second"
    assert [p.name for p in path.parent.iterdir()] == ["out"]


def test_partial_of_a_killed_writer_is_removed_by_the_next(tmp_path):
    path = tmp_path / "out"
    code = (
        "import os, signal, sys\n"
        "from besselflow.store import atomic_path\n"
        "with atomic_path(sys.argv[1]) as temporary:\n"
        "    temporary.mkdir()\n"
        "    (temporary / 'half').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(path)])
    assert killed.returncode == -signal.SIGKILL
    (partial,) = tmp_path.iterdir()
    assert (partial / "half").exists() and not path.exists()
    living = tmp_path / f".out.partial-{platform.node()}-{os.getppid()}"
    living.write_text("of another process that still runs")
    with atomic_path(path) as temporary:
        temporary.write_text("whole")
    assert {p.name for p in tmp_path.iterdir()} == {"out", living.name}
    assert path.read_text() == "whole"


def test_json_appears_whole(tmp_path):
    write_json(tmp_path / "a.json", {"x": [1, 2]})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert (tmp_path / "a.json").read_text() == '{\n  "x": [\n    1,\n    2\n  ]\n}\n'
    assert len(list(tmp_path.iterdir())) == 1


def unit_values(unit, name):
    return np.full((3, 12, 12), unit.index + (100 if name == "std" else 0), np.float32)


def test_units_of_all_shards_are_found_by_their_index(tmp_path):
    units = list_units((2, 1, 3, 30, 20), 8, 2)
    paths = [tmp_path / f"shard-{shard}" for shard in range(3)]
    for shard, path in enumerate(paths):
        with UnitWriter(path, units_of_shard(units, shard, 3), (3, 12, 12), ("volume", "std")) as w:
            for unit in w.units:
                arrays = {name: unit_values(unit, name) for name in ("volume", "std")}
                w.write(unit, {"chi2": unit.index / 2}, **arrays)
    stores = open_units(paths[::-1])
    assert set(stores.records) == {unit.index for unit in units}
    for unit in units:
        for name in ("volume", "std"):
            np.testing.assert_array_equal(stores.arrays[name][unit.index], unit_values(unit, name))
        assert stores.records[unit.index] == {"unit": unit.index, "chi2": unit.index / 2}


def test_failing_shard_leaves_what_was_there(tmp_path):
    units = list_units((1, 1, 3, 12, 12), 8, 2)
    with pytest.raises(RuntimeError), UnitWriter(tmp_path / "s", units, (3, 12, 12)):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with UnitWriter(tmp_path / "s", units, (3, 12, 12)) as writer:
        writer.write(units[0], {}, volume=unit_values(units[0], "volume") + 7)
    with pytest.raises(RuntimeError), UnitWriter(tmp_path / "s", units, (3, 12, 12)) as writer:
        writer.write(units[0], {}, volume=unit_values(units[0], "volume"))
        raise RuntimeError
    np.testing.assert_array_equal(open_units([tmp_path / "s"]).arrays["volume"][0], 7)
    assert len(list(tmp_path.iterdir())) == 1


def test_empty_shard(tmp_path):
    with UnitWriter(tmp_path / "s", [], (3, 12, 12)):
        pass
    stores = open_units([tmp_path / "s"])
    assert stores.records == {}
    assert stores.arrays == {"volume": {}}


def sharded(tmp_path, shape=(1, 1, 4, 64, 64)):
    return arrays.create_array(LocalStore(tmp_path / "a"), "0", shape, (1, 1, 4, 16, 16))


@pytest.mark.parametrize("block", [(1, 1, 4, 24, 16), (1, 1, 4, 16, 8), (1, 1, 3, 64, 64)], ids=str)
def test_blocks_that_share_a_chunk_are_refused_before_anything_is_written(tmp_path, block):
    array = sharded(tmp_path)
    with pytest.raises(AssertionError, match="cut chunks"):
        arrays.store_blocks(da.ones(array.shape), array, block)
    assert not (tmp_path / "a" / "0" / "c").exists()


def test_data_of_another_shape_are_refused(tmp_path):
    array = sharded(tmp_path)
    with pytest.raises(AssertionError, match="do not fill"):
        arrays.store_blocks(da.ones((1, 1, 4, 64, 63)), array)


def test_shards_that_cut_a_volume_are_refused(tmp_path):
    array = zarr.create_array(
        LocalStore(tmp_path),
        shape=(1, 1, 4, 64, 64),
        chunks=(1, 1, 4, 16, 16),
        shards=(1, 1, 4, 32, 64),
        dtype="float32",
    )
    with pytest.raises(AssertionError, match="cut a time point"):
        arrays.store_blocks(da.ones(array.shape), array)


def test_a_shard_has_no_second_writer(tmp_path):
    array = sharded(tmp_path)
    arrays.store_blocks(da.ones(array.shape), array)
    with pytest.raises(FileExistsError):
        arrays.store_blocks(da.ones(array.shape), array)
    assert np.asarray(array).min() == 1


def test_a_unit_has_no_second_writer_and_fills_its_chunk(tmp_path):
    units = list_units((1, 1, 3, 12, 12), 12, 2)
    with UnitWriter(tmp_path / "u.zip", units, (3, 12, 12)) as writer:
        with pytest.raises(AssertionError, match="do not fill"):
            writer.write(units[0], {}, volume=np.zeros((3, 12, 11), np.float32))
        writer.write(units[0], {}, volume=unit_values(units[0], "volume"))
        with pytest.raises(AssertionError, match="two writers"):
            writer.write(units[0], {}, volume=unit_values(units[0], "volume"))


def test_a_damaged_store_is_named_with_a_remedy(tmp_path):
    (tmp_path / "u.zip").write_bytes(b"PK half of a file")
    with pytest.raises(RuntimeError, match=r"u\.zip: not a readable store; delete the file"):
        open_units([tmp_path / "u.zip"])


def test_as_many_blocks_as_workers_are_computed_at_once(tmp_path):
    running, most, lock = 0, 0, threading.Lock()

    def slow(block):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1
        return block

    array = sharded(tmp_path)
    data = da.ones(array.shape, chunks=(1, 1, 4, 16, 16)).map_blocks(slow, meta=np.empty((0,) * 5))
    with dask.config.set(num_workers=2):
        arrays.store_blocks(data, array, (1, 1, 4, 16, 16))
    assert most == 2


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "the disk is full; free some space"), (errno.EROFS, "read-only; make the")],
)
def test_a_disk_that_can_not_be_written_is_explained(tmp_path, number, words):
    with pytest.raises(InputError, match=words) as caught, atomic_path(tmp_path / "out"):
        raise OSError(number, "from deep inside")
    assert str(tmp_path / "out") in str(caught.value)
    # A file that may not be read is none of its business.
    with pytest.raises(PermissionError), atomic_path(tmp_path / "out"):
        raise PermissionError(errno.EACCES, "denied", "/elsewhere/stack.tif")

"""Acquisitions as microscopes write them, from a folder to volumes, without a stage CSV."""

import numpy as np
import pytest
import zarr

from besselflow.beam import parse_beam_profile
from besselflow.phantoms import draw_phantom
from besselflow.simulate import Detector, simulate_acquisition
from besselflow.store import open_projections, open_volume
from simulate_acquisition import SHEET_COLUMNS
from tiny_runs import SHAPE, VOXEL_SIZE_UM, TinyFacility, job_counts
from vendor_files import scanimage_header, scanimage_pages, write_bruker, write_scanimage

pytestmark = pytest.mark.workflow

POSITIONS = np.array([2.5, 8.5, 14.5])
TIMES, CHANNELS = 3, 2
METHODS = ["interpolation", "spectral"]


def record():
    """Return the volumes (T, C, Z, Y, X), each of its own brightness, and their projections."""
    volumes = np.empty((TIMES, CHANNELS, *SHAPE))
    counts = np.empty((TIMES, CHANNELS, len(POSITIONS), *SHAPE[1:]), np.uint16)
    detector, profile = Detector(), parse_beam_profile("box:6um")
    for t, c in np.ndindex(TIMES, CHANNELS):
        volumes[t, c] = (1 + t + 3 * c) * draw_phantom("vessels", SHAPE, 5 + c, VOXEL_SIZE_UM)
        counts[t, c] = simulate_acquisition(
            volumes[t, c], profile, POSITIONS, VOXEL_SIZE_UM, detector, seed=t + 7 * c
        ).counts
    return volumes, counts


class Facility(TinyFacility):
    """A sheet with a folder of Prairie View and a split series of ScanImage."""

    def __init__(self, folder):
        super().__init__(folder, methods=METHODS, final="spectral")
        self.volumes, counts = record()
        place = folder / "Mäuse µ 1"
        self.scan = write_bruker(
            place / "T Series-001", counts, 937.0, POSITIONS, turn=True, pixel_um=(1.0, 1.0)
        )
        pages = scanimage_pages(counts // 8, repeats=2, flyback=1)
        header = scanimage_header(3, POSITIONS, CHANNELS, TIMES, repeats=2, flyback=1, fov=24)
        self.series = [place / f"mouse 2_{number:05d}.tif" for number in (1, 2)]
        for path, (start, stop) in zip(self.series, ((0, 20), (20, 42)), strict=True):
            write_scanimage(path, pages[start:stop], header, first=start // 2 + 1)
        common = {
            "beam_profile": "box:6um",
            "voxel_size_z_um": "1",
            "role": "test",
            "offset": "100",
        }
        empty = dict.fromkeys(SHEET_COLUMNS, "")
        for name, path in (("bruker", self.scan), ("scanimage", self.series[0])):
            row = empty | common | {"sample": name, "acquisition": str(path.relative_to(folder))}
            self.rows[name] = row
        self.write_sheet()
        self.done = self.run()


@pytest.fixture(scope="module")
def facility(tmp_path_factory):
    return Facility(tmp_path_factory.mktemp("formats"))


def test_series_reaches_the_volume_and_the_report(facility):
    assert facility.done.returncode == 0, facility.done.stdout
    for name in ("bruker", "scanimage"):
        folder = facility.results / name
        volume = open_volume(folder / "volume.ome.zarr")
        shape = (TIMES, CHANNELS, *volume.data.shape[2:])
        assert volume.data.shape == shape and shape[3:] == SHAPE[1:]
        assert volume.voxel_size_um == (1, 1, 1)
        page = (folder / "report.html").read_text(encoding="utf-8")
        assert "3 time points, 2 channels" in page
        assert (facility.results / "report.html").exists()


def test_every_time_and_channel_holds_its_own_volume(facility):
    volume = np.asarray(open_volume(facility.results / "bruker" / "volume.ome.zarr").data)
    projections = open_projections(facility.results / "bruker" / "projections.zip")
    assert projections.positions_um.tolist() == POSITIONS.tolist()
    # Slices from -0.5 to 17.5 um are those of the phantom.
    first = round(-projections.grid.first_um)
    inside = volume[:, :, first : first + SHAPE[0]]
    for t, c in np.ndindex(TIMES, CHANNELS):
        alike = [
            np.corrcoef(inside[t, c].ravel(), facility.volumes[0, k].ravel())[0, 1]
            for k in range(CHANNELS)
        ]
        assert int(np.argmax(alike)) == c and max(alike) > 0.5
    brightness = inside.sum((2, 3, 4))
    assert (np.diff(brightness, axis=0) > 0).all()


def test_names_of_the_channels_are_told_to_viewers(facility):
    group = zarr.open_group(str(facility.results / "bruker" / "volume.ome.zarr"), mode="r")
    labels = [channel["label"] for channel in group.attrs["ome"]["omero"]["channels"]]
    assert labels == ["Ch1 Grün", "Ch2 Grün"]


def test_second_run_does_nothing_until_a_file_of_the_series_changes(facility):
    again = facility.run("--dry-run")
    assert "Nothing to be done" in again.stdout, again.stdout
    for path, sample in (
        (facility.series[1], "scanimage"),
        (next(facility.scan.glob("*.tif")), "bruker"),
    ):
        raw = bytearray(path.read_bytes())
        raw[-1] ^= 1
        path.write_bytes(raw)
        planned = facility.run("--dry-run", f"results/{sample}/projections.zip")
        assert job_counts(planned.stdout)["preprocess"] == 1

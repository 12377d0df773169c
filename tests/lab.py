"""A sheet whose files the tests of the checks spoil one by one."""

import contextlib
import os

import numpy as np
import tifffile

from besselflow.checks import check_samples
from besselflow.sample_sheet import read_sheet
from sheets import TEST, TRAIN, write_sheet

POSITIONS = np.arange(2.5, 20, 6)
Z = 20
_NOBODY = 65534


@contextlib.contextmanager
def without_privileges():
    """Go without root's right to read everything for a while, as the users of a facility do."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def volume(seed, shape=(Z, 32, 36)):
    return np.random.default_rng(seed).integers(90, 4000, shape).astype(np.uint16)


def write_tiff(path, data, **options):
    options.setdefault("metadata", {"axes": "TCZYX"[-data.ndim :]})
    tifffile.imwrite(path, data, photometric="minisblack", **options)


class Lab:
    """A folder with one good test sample and one good train sample, to be spoilt by the tests."""

    def __init__(self, folder):
        self.folder = folder
        self.flat_field = self.attenuation_um = None
        write_tiff(folder / "a.tif", volume(0, (3, 32, 36)))
        self.write_stage(POSITIONS)
        write_tiff(folder / "a_truth.tif", volume(1))
        write_tiff(folder / "t.tif", volume(2))
        self.test = TEST | {"voxel_size_x_um": "0.5", "ground_truth": "a_truth.tif", "offset": ""}
        self.train = TRAIN | {"voxel_size_x_um": "0.5", "offset": ""}

    def write_stage(self, positions, name="a.csv"):
        rows = [f"{i},{z:g}" for i, z in enumerate(positions)]
        (self.folder / name).write_text("\n".join(["projection,z_um", *rows]))

    def write_sheet(self, *rows):
        return write_sheet(self.folder, *rows)

    def check(self, *rows):
        sheet = read_sheet(self.write_sheet(*rows))
        return check_samples(sheet, self.flat_field, self.attenuation_um)

    def problem(self, **cells):
        """Return the only problem of the test sample, after a good copy of it in the sheet."""
        good = self.test | {
            "sample": "good",
            "acquisition": "good.tif",
            "stage_positions": "good.csv",
            "ground_truth": "good_truth.tif",
        }
        write_tiff(self.folder / "good.tif", volume(5, (3, 32, 36)))
        write_tiff(self.folder / "good_truth.tif", volume(6))
        self.write_stage(POSITIONS, "good.csv")
        checked = self.check(good, self.test | cells, self.train)
        assert [sample.name for sample in checked.tests] == ["good"]
        assert [sample.name for sample in checked.trains] == ["t"]
        assert set(checked.rejected) == {"a"}
        (problem,) = checked.rejected["a"]
        assert problem.row == 3
        assert problem.sample == "a"
        assert problem.remedy
        return problem

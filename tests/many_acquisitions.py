"""A sheet of many small acquisitions of different samples, under one light."""

import numpy as np
import tifffile

from besselflow.disturbance import uneven_light
from sheets import write_sheet

SIZE, OFFSET = (50, 70), 100.0
LIGHT = uneven_light(SIZE, 0.6)
HOT = (11, 51)


class Facility:
    """A folder with acquisitions and their sheet."""

    def __init__(self, folder):
        self.folder, self.rows = folder, []

    def add(self, light=LIGHT, spoil=None, planes=2, **cells):
        """Write an acquisition of a sample of its own; `spoil` may change the counts (.., P, Y, X).

        The light may have several channels, (C, Y, X).
        """
        number = len(self.rows)
        rng = np.random.default_rng(number)
        light = np.atleast_3d(light.T).T
        shape = (len(light), planes, *light.shape[1:])
        photons = rng.poisson(rng.gamma(0.5, 4 * 2.0 ** (number % 6), shape) * light[:, None])
        counts = 10 * photons + rng.normal(OFFSET, 5, shape).round()
        counts[..., HOT[0], HOT[1]] += 20000
        if spoil is not None:
            counts = spoil(counts)
        name = cells.setdefault("sample", f"s{number}")
        tifffile.imwrite(
            self.folder / f"{name}.tif",
            counts.clip(0, 65535).astype(np.float32 if np.isnan(counts).any() else np.uint16),
            photometric="minisblack",
            metadata={"axes": "CZYX"},
        )
        usual = {
            "acquisition": f"{name}.tif",
            "beam_profile": "box:6um",
            "voxel_size_y_um": "0.5",
            "voxel_size_x_um": "0.5",
            "role": "test",
            "offset": f"{OFFSET:g}",
        }
        self.rows.append(usual | cells)

    @property
    def sheet(self):
        return write_sheet(self.folder, *self.rows)

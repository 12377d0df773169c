"""The preflight looks at an acquisition as it will be reconstructed: under even light."""

from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

import preflight_sample
from besselflow.acquisition import open_acquisition
from besselflow.beam import box_profile
from besselflow.config import Config, Corrections, Preflight
from besselflow.corrections.pixels import correct_pixels
from besselflow.disturbance import Disturbance
from besselflow.errors import InputError
from besselflow.preflight import read_examination, read_subsample
from besselflow.preflight.subsample import read_crops
from besselflow.simulate import (
    Detector,
    simulate_acquisition,
    stage_positions,
    write_acquisition,
)

VOXEL_UM = (1.0, 1.0, 1.0)
CROPS = Preflight(crop=32, crops=4)


@pytest.fixture(scope="module")
def acquired(tmp_path_factory):
    """The arguments of two acquisitions of one sample, under even and uneven light; its field."""
    folder = tmp_path_factory.mktemp("flat")
    rng = np.random.default_rng(0)
    volume = gaussian_filter((rng.random((24, 80, 96)) < 0.01).astype(float), 1.5)
    volume, beam = volume / volume.max(), box_profile(6.0)
    positions, rows = stage_positions(len(volume), 1.0, beam, 6.0), []
    for name, vignetting in (("even", 0.0), ("uneven", 0.8)):
        disturbance = Disturbance(vignetting=vignetting)
        found = simulate_acquisition(
            volume, beam, positions, VOXEL_UM, Detector(), disturbance, seed=1
        )
        files = write_acquisition(folder, name, found, beam, VOXEL_UM)
        row = (files.acquisition, files.stage_positions, None, "box:6um", VOXEL_UM, 100.0, 10.0)
        rows.append(row)
    path = folder / "flat.tif"
    light = found.truth["flat_field"].astype(np.float32)
    tifffile.imwrite(path, light, photometric="minisblack")
    return *rows, str(path)


def test_crops_are_what_preprocess_makes_of_them(acquired):
    _, row, path = acquired
    subsample = read_subsample(*row, settings=CROPS, flat_field=path)
    settings = Corrections(flat_field=path, hot_pixels="none", scan_phase="none", line_noise="none")
    whole = correct_pixels(open_acquisition(row[0]).data, 100.0, 10.0, settings).intensity
    expected = read_crops(da.asarray(whole[0]), CROPS.crop, CROPS.crops)
    np.testing.assert_allclose(subsample.intensity, expected, rtol=1e-5, atol=1e-5)
    assert subsample.intensity.dtype == np.float32
    # What saturates is judged by what was counted.
    as_it_is = read_subsample(*row, settings=CROPS)
    np.testing.assert_array_equal(subsample.counts, as_it_is.counts)
    assert not np.allclose(as_it_is.intensity, expected, rtol=0.05)


def test_the_density_is_that_of_the_sample_and_not_of_the_light(acquired, tmp_path):
    even, uneven, path = acquired

    def density(row, flat_field):
        corrections = Corrections(flat_field=flat_field)
        config = Config(corrections=corrections, preflight=Preflight(crop=24, crops=4))
        record = tmp_path / f"{Path(row[0]).stem}-{Path(flat_field).stem}.json"
        preflight_sample.main(*row, "sample", config, record)
        return read_examination(record).density

    undisturbed, disturbed = density(even, "none"), density(uneven, "none")
    corrected = density(uneven, path)
    assert abs(corrected / undisturbed - 1) < 0.5 * abs(disturbed / undisturbed - 1)


def test_a_flat_field_of_another_size_is_refused(acquired, tmp_path):
    path = tmp_path / "small.tif"
    tifffile.imwrite(path, np.ones((30, 40), np.float32))
    with pytest.raises(InputError, match=r"small\.tif: the flat field has 30 x 40 pixels"):
        read_subsample(*acquired[1], settings=CROPS, flat_field=str(path))

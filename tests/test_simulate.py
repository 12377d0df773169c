"""Checks the simulated detector and disturbances against closed forms, and the files written."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

import simulate_acquisition as simulate_acquisition_script
from besselflow.beam import (
    AxialProfile,
    blur,
    box_profile,
    gaussian_profile,
    parse_beam_profile,
    read_lateral_psf,
)
from besselflow.simulate import (
    Detector,
    Disturbance,
    beam_bins,
    simulate_acquisition,
    stage_positions,
    write_acquisition,
    write_complete,
    write_volume,
)

SCRIPT = Path(__file__).parents[1] / "scripts" / "simulate_acquisition.py"
VOXEL = (1.0, 1.0, 1.0)
BOX = box_profile(6.0)


@pytest.fixture(scope="module")
def volume():
    noise = gaussian_filter(np.random.default_rng(0).standard_normal((24, 40, 44)), 2.5)
    return np.clip(noise / noise.max(), 0, 1).astype(np.float32)


def smooth_pattern(shape):
    noise = gaussian_filter(np.random.default_rng(5).standard_normal(shape), 4, mode="wrap")
    return (noise - noise.min()) / np.ptp(noise)


@pytest.mark.parametrize("photons", [0.0, 2.0, 80.0])
def test_counts_have_the_mean_and_variance_of_the_model(photons):
    detector = Detector(gain=7.0, offset=150.0, read_noise=4.0)
    n = 200_000
    counts = detector.expose(np.full(n, photons), np.random.default_rng(1)).astype(float)
    variance = 7.0**2 * photons + 4.0**2
    # The fourth moment of the Poisson part widens the error of a sample variance.
    fourth = 3 * variance**2 + 7.0**4 * photons
    assert counts.mean() == pytest.approx(150 + 7 * photons, abs=5 * np.sqrt(variance / n))
    assert counts.var() == pytest.approx(
        variance + 1 / 12, abs=5 * np.sqrt((fourth - variance**2) / n)
    )


def test_noise_is_independent_between_pixels():
    counts = Detector().expose(np.full((300, 300), 50.0), np.random.default_rng(2)).astype(float)
    neighbours = np.corrcoef(counts[:, 1:].ravel(), counts[:, :-1].ravel())[0, 1]
    assert abs(neighbours) < 5 / 300


@pytest.mark.parametrize("bit_depth", [8, 12, 16])
def test_counts_saturate_at_the_bit_depth(bit_depth):
    detector = Detector(bit_depth=bit_depth)
    counts = detector.expose(np.array([0.0, 1e6]), np.random.default_rng(3))
    assert counts.dtype == np.uint16
    assert counts[1] == 2**bit_depth - 1 == detector.saturation


def test_counts_do_not_wrap_below_zero():
    detector = Detector(offset=0.0, read_noise=20.0)
    counts = detector.expose(np.zeros(10_000), np.random.default_rng(4))
    assert counts.max() < 200
    assert (counts == 0).mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_impossible_photons_are_refused(bad):
    with pytest.raises(ValueError, match="finite and not negative"):
        Detector().expose(np.array([bad]), np.random.default_rng(0))


@pytest.mark.parametrize(
    "options", [{"photons": 0}, {"gain": -1}, {"offset": -1}, {"read_noise": -1}, {"bit_depth": 17}]
)
def test_impossible_detectors_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Detector(**options)


@pytest.mark.parametrize(
    "options", [{"drift_um": -1}, {"bleaching": 1.0}, {"hot_pixels": 1.1}, {"bleaching": np.nan}]
)
def test_impossible_disturbances_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Disturbance(**options)


def test_positions_start_at_the_upper_edge_and_stay_inside():
    positions = stage_positions(48, 1.0, BOX, 6.0)
    assert np.array_equal(positions, 2.5 + 6.0 * np.arange(8))
    assert stage_positions(6, 1.0, BOX, 6.0).tolist() == [2.5]
    assert stage_positions(11, 1.0, BOX, 6.0).tolist() == [2.5]


@pytest.mark.parametrize("spacing", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("step", [0.7, 3.0, 8.0])
def test_windows_lie_within_the_volume(spacing, step):
    skewed = AxialProfile(np.array([-4.0, 0.0, 2.0]), np.array([0.2, 0.8]), "skewed")
    n = int(np.ceil(30 / spacing))
    for profile in (BOX, skewed, gaussian_profile(8.0)):
        positions = stage_positions(n, spacing, profile, step)
        low, high = profile.support_um
        assert positions[0] + low == pytest.approx(-spacing / 2)
        bottom = (n - 0.5) * spacing
        assert positions[-1] + high <= bottom + 1e-6
        assert positions[-1] + step + high > bottom


def test_a_thin_volume_is_refused_in_words():
    message = r"5 um thick \(5 slices of 1 um\), thinner than the 6 um that the beam box:6um"
    with pytest.raises(ValueError, match=message):
        stage_positions(5, 1.0, BOX, 6.0)
    with pytest.raises(ValueError, match="step_um"):
        stage_positions(50, 1.0, BOX, 0.0)


def test_a_projection_is_the_mean_of_its_window(volume):
    positions = stage_positions(24, 1.0, BOX, 6.0)
    acquisition = simulate_acquisition(volume, BOX, positions, VOXEL)
    windows = volume.reshape(4, 6, 40, 44).mean(axis=1)
    assert np.allclose(acquisition.photons, 300 * windows, rtol=1e-5)
    assert acquisition.counts.shape == (4, 40, 44)
    assert acquisition.seen.all()
    residual = (acquisition.counts - 100.0) / 10 - acquisition.photons
    assert np.mean(residual**2) == pytest.approx(300 * windows.mean() + 0.25, rel=0.1)


def test_seed_decides_the_noise_and_nothing_else(volume):
    positions = stage_positions(24, 1.0, BOX, 6.0)
    disturbance = Disturbance(drift_um=0.5, bleaching=0.2, hot_pixels=0.01)
    first, again, other = (
        simulate_acquisition(volume, BOX, positions, VOXEL, disturbance=disturbance, seed=seed)
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first.counts, again.counts)
    assert not np.array_equal(first.counts, other.counts)
    calm = [simulate_acquisition(volume, BOX, positions, VOXEL, seed=s).photons for s in (1, 2)]
    assert np.array_equal(*calm)


def test_lateral_blur_keeps_the_light_and_widens_points(volume):
    kernel = read_lateral_psf("gaussian:2um", None, VOXEL[1:], 9).kernel
    flat = simulate_acquisition(np.ones_like(volume), BOX, [2.5], VOXEL, lateral_kernel=kernel)
    assert np.allclose(flat.photons, 300)
    point = np.zeros_like(volume)
    point[2, 20, 20] = 1
    seen = simulate_acquisition(point, BOX, [2.5], VOXEL, lateral_kernel=kernel).photons[0]
    reach = len(kernel) // 2
    window = slice(20 - reach, 21 + reach)
    assert np.allclose(seen[window, window], 300 / 6 * kernel)
    assert seen.sum() == pytest.approx(300 / 6)
    assert seen.min() >= 0


def test_axial_projection_and_lateral_blur_commute(volume):
    kernel = read_lateral_psf("bessel:NA=0.3-0.6,wavelength=0.94um", None, VOXEL[1:], 40).kernel
    positions = stage_positions(24, 1.0, BOX, 6.0)
    after = simulate_acquisition(volume, BOX, positions, VOXEL, lateral_kernel=kernel).photons
    before = simulate_acquisition(blur(volume, kernel), BOX, positions, VOXEL).photons
    assert np.allclose(after, before, atol=1e-6)


def test_even_kernels_are_refused(volume):
    with pytest.raises(ValueError, match="two odd sizes"):
        simulate_acquisition(volume, BOX, [2.5], VOXEL, lateral_kernel=np.ones((2, 3)) / 6)


def test_bleaching_is_exponential_and_ends_at_its_share(volume):
    positions = stage_positions(24, 1.0, BOX, 2.0)
    flat = np.ones_like(volume)
    acquisition = simulate_acquisition(
        flat, BOX, positions, VOXEL, disturbance=Disturbance(bleaching=0.3)
    )
    level = acquisition.photons.mean(axis=(1, 2)) / 300
    assert level[0] == pytest.approx(1)
    assert level[-1] == pytest.approx(0.7)
    assert np.allclose(level[1:] / level[:-1], 0.7 ** (1 / (len(positions) - 1)))
    assert np.allclose(level, acquisition.truth["brightness"])
    recorded = (acquisition.counts.mean(axis=(1, 2)) - 100) / 3000
    assert np.allclose(recorded, level, atol=0.01)


def test_one_projection_is_not_bleached(volume):
    acquisition = simulate_acquisition(
        volume, BOX, [2.5], VOXEL, disturbance=Disturbance(bleaching=0.5)
    )
    assert acquisition.truth["brightness"].tolist() == [1.0]


def test_hot_pixels_are_as_many_as_asked_and_stay_in_place():
    positions = stage_positions(24, 1.0, BOX, 6.0)
    dark = np.zeros((24, 100, 100))
    acquisition = simulate_acquisition(
        dark, BOX, positions, VOXEL, disturbance=Disturbance(hot_pixels=0.005)
    )
    hot = acquisition.truth["hot_pixels"]
    assert hot.sum() == 50
    bright = acquisition.counts > 100 + 10 * 5 + 5 * 5
    assert np.array_equal(bright, np.broadcast_to(hot, bright.shape))


def test_drift_moves_the_images_as_the_truth_says():
    pattern = smooth_pattern((80, 80))
    volume = np.broadcast_to(pattern, (24, 80, 80))
    positions = stage_positions(24, 1.0, BOX, 3.0)
    voxel = (1.0, 0.5, 0.25)
    acquisition = simulate_acquisition(
        volume,
        BOX,
        positions,
        voxel,
        Detector(photons=5000, gain=1),
        Disturbance(drift_um=0.6),
        seed=3,
    )
    drift = acquisition.truth["drift_um"]
    assert drift.shape == (len(positions), 2)
    assert drift[0].tolist() == [0, 0]
    images = acquisition.counts[:, 12:-12, 12:-12].astype(float)
    gradient = np.stack(np.gradient(images[0]), axis=-1).reshape(-1, 2)
    design = np.column_stack([gradient, np.ones(len(gradient))])
    for image, moved in zip(images[1:3], drift[1:3], strict=True):
        # First order: I(x - d) - I(x) = -d . grad I, good to a fraction of a pixel.
        estimate = -np.linalg.lstsq(design, (image - images[0]).ravel())[0][:2] * voxel[1:]
        assert estimate == pytest.approx(moved, abs=0.25)
    steps = [
        np.diff(
            simulate_acquisition(
                volume[:, :4, :4], BOX, positions, voxel, None, Disturbance(0.6), seed
            ).truth["drift_um"],
            axis=0,
        )
        for seed in range(30)
    ]
    assert np.std(steps) == pytest.approx(0.6, rel=0.15)


def test_wrong_volumes_are_refused():
    with pytest.raises(ValueError, match=r"axes \(Z, Y, X\)"):
        simulate_acquisition(np.ones((4, 4)), BOX, [0.0], VOXEL)
    with pytest.raises(ValueError, match="not negative"):
        simulate_acquisition(-np.ones((8, 4, 4)), BOX, [2.5], VOXEL)
    with pytest.raises(ValueError, match="voxel size"):
        simulate_acquisition(np.ones((8, 4, 4)), BOX, [2.5], (1, 1))
    with pytest.raises(ValueError, match="sees no slice"):
        simulate_acquisition(np.ones((8, 4, 4)), BOX, [2.5, 90.0], VOXEL)


@pytest.mark.parametrize("spec", ["box:6um", "box:5.5um", "gaussian:8um"])
@pytest.mark.parametrize("spacing", [0.5, 1.0, 20.0])
def test_beam_bins_keep_support_weight_and_centre(spec, spacing):
    profile = parse_beam_profile(spec)
    centres, weights = beam_bins(profile, spacing)
    assert len(centres) >= 2
    width = np.diff(centres)
    assert np.allclose(width, width[0])
    assert width[0] <= max(spacing, profile.extent_um / 2) + 1e-9
    assert centres[0] - width[0] / 2 == pytest.approx(profile.support_um[0])
    assert weights.sum() == pytest.approx(1)
    assert centres @ weights == pytest.approx(0, abs=1e-9)
    if spec.startswith("box"):
        assert np.allclose(weights, weights[0])


@pytest.fixture
def written(tmp_path, volume):
    voxel = (2.0, 0.5, 0.25)
    detector = Detector(photons=100, gain=2, offset=50)
    positions = stage_positions(24, 2.0, BOX, 5.0)
    acquisition = simulate_acquisition(volume, BOX, positions, voxel, detector)
    files = write_acquisition(
        tmp_path / "new", "first", acquisition, BOX, voxel, detector, ground_truth=volume
    )
    return acquisition, files, detector


def physical_size(path):
    with tifffile.TiffFile(path) as tif:
        assert tif.is_ome
        assert tif.series[0].axes == "ZYX"
        pixels = tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]["Pixels"]
    for axis in "ZYX":
        assert pixels[f"PhysicalSize{axis}Unit"] == "µm"
    return tuple(pixels[f"PhysicalSize{axis}"] for axis in "ZYX")


def test_written_stack_reads_back_with_axes_and_sizes(written):
    acquisition, files, _ = written
    assert files.acquisition.name == "first.ome.tif"
    stack = tifffile.imread(files.acquisition)
    assert stack.dtype == np.uint16
    assert np.array_equal(stack, acquisition.counts)
    assert physical_size(files.acquisition) == (5.0, 0.5, 0.25)
    with tifffile.TiffFile(files.acquisition) as tif:
        assert tif.pages[0].compression == tifffile.COMPRESSION.ADOBE_DEFLATE


def test_written_ground_truth_is_in_counts(written, volume):
    _, files, detector = written
    counts = tifffile.imread(files.ground_truth)
    assert physical_size(files.ground_truth) == (2.0, 0.5, 0.25)
    assert counts.dtype == np.uint16
    assert np.abs(counts - (50 + 2 * 100 * volume)).max() <= 0.501
    assert np.array_equal(counts, detector.noise_free_counts(volume))


def test_written_tables_read_back(written):
    acquisition, files, _ = written
    stage = pd.read_csv(files.stage_positions)
    assert list(stage.columns) == ["projection", "z_um"]
    assert stage["projection"].tolist() == list(range(len(acquisition.positions_um)))
    assert np.allclose(stage["z_um"], acquisition.positions_um)
    profile = parse_beam_profile(files.beam_profile.name, files.beam_profile.parent)
    assert profile.support_um == pytest.approx(BOX.support_um)
    assert np.allclose(profile.weights, 1 / 3)


def test_writing_leaves_no_other_files_and_repeats_itself(written, volume, tmp_path):
    acquisition, files, detector = written
    names = sorted(path.name for path in files.acquisition.parent.iterdir())
    assert names == [
        "first.ome.tif",
        "first_beam.csv",
        "first_ground_truth.ome.tif",
        "first_stage.csv",
    ]
    again = write_acquisition(
        tmp_path / "again", "first", acquisition, BOX, (2.0, 0.5, 0.25), detector, volume
    )
    assert again.acquisition.read_bytes() == files.acquisition.read_bytes()
    without = write_acquisition(tmp_path / "b", "x", acquisition, BOX, (2.0, 0.5, 0.25))
    assert without.ground_truth is None
    with pytest.raises(ValueError, match="plain file name"):
        write_acquisition(tmp_path, "a/b", acquisition, BOX, (2.0, 0.5, 0.25))


def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")

    def fail(partial):
        partial.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_complete(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def run(*arguments, cwd):
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


def test_command_line_describes_what_it_simulated(tmp_path, volume):
    write_volume(tmp_path / "v.ome.tif", volume, VOXEL)
    options = ["--beam", "box:6um", "--step", 8, "--voxel-size", 1, 1, 1, "--seed", 4]
    done = run(
        "v.ome.tif", *options, "--ground-truth", "--out", "plan", "--name", "first", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "3 projections instead of 24 slices: 8.0 times as fast" in done.stdout
    assert "guessed: 6-7, 14-15, 22-23." in done.stdout
    assert "0 % of the pixels are saturated at 65535 counts" in done.stdout
    header, row = (line.split("\t") for line in done.stdout.splitlines()[-2:])
    sheet = dict(zip(header, row, strict=True))
    assert sheet["role"] == "test"
    assert (sheet["offset"], sheet["gain"]) == ("100", "10")
    for column in ("acquisition", "stage_positions", "beam_profile", "ground_truth"):
        assert Path(sheet[column]).is_absolute()
        assert Path(sheet[column]).is_file()
    peak = np.float64(volume.max())
    expected = simulate_acquisition(
        volume / peak, BOX, stage_positions(24, 1.0, BOX, 8.0), VOXEL, seed=4
    )
    assert np.array_equal(tifffile.imread(tmp_path / sheet["acquisition"]), expected.counts)


def test_command_line_blurs_laterally_and_says_how_in_the_row(tmp_path, volume):
    write_volume(tmp_path / "v.ome.tif", volume, VOXEL)
    beam = "bessel:NA=0.30-0.60,wavelength=0.94um"
    options = ["--step", 4, "--voxel-size", 1, 0.2, 0.2, "--out", "plan", "--name", "first"]
    done = run("v.ome.tif", "--beam", beam, "--lateral-psf", "beam", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"The lateral blur {beam} covers" in done.stdout
    header, row = (line.split("\t") for line in done.stdout.splitlines()[-2:])
    assert dict(zip(header, row, strict=True))["lateral_psf"] == beam
    profile = parse_beam_profile(beam)
    expected = simulate_acquisition(
        volume / volume.max(),
        profile,
        stage_positions(24, 1.0, profile, 4.0),
        (1.0, 0.2, 0.2),
        lateral_kernel=read_lateral_psf(beam, None, (0.2, 0.2), 44).kernel,
    )
    found = tifffile.imread(tmp_path / "plan" / "first.ome.tif")
    assert np.array_equal(found, expected.counts)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"volume": "missing.tif"}, "missing.tif does not exist"),
        ({"volume": "text.tif"}, "is not a TIFF file"),
        ({"volume": "inverted.tif"}, "export it with black as zero"),
        ({"volume": "plane.tif"}, "save one channel and one time point"),
        ({"beam": "box:90um"}, "thinner than the 90 um"),
        ({"beam": "bix:6um"}, '"bix" is unknown'),
        ({"volume_offset": 7.0}, "no finite brightness above 7"),
    ],
)
def test_a_mistake_is_explained_and_writes_nothing(tmp_path, volume, changed, message):
    write_volume(tmp_path / "v.ome.tif", volume[:, :8, :8], VOXEL)
    (tmp_path / "text.tif").write_text("not an image")
    tifffile.imwrite(tmp_path / "plane.tif", volume[0])
    tifffile.imwrite(tmp_path / "inverted.tif", volume, photometric="miniswhite")
    options = {"volume": "v.ome.tif", "beam": "box:6um", "volume_offset": 0.0} | changed
    with pytest.raises(ValueError, match=message):
        simulate_acquisition_script.main(
            tmp_path / options["volume"],
            options["beam"],
            6.0,
            VOXEL,
            Detector(),
            Disturbance(),
            0,
            tmp_path / "plan",
            "n",
            volume_offset=options["volume_offset"],
        )
    assert not (tmp_path / "plan").exists()


def test_command_line_explains_a_mistake_in_one_sentence(tmp_path):
    rest = ["--beam=box:6um", "--step=6", "--voxel-size", 1, 1, 1, "--out=plan", "--name=n"]
    failed = run("v.tif", "--photons=-3", *rest, cwd=tmp_path)
    assert failed.returncode == 2
    assert failed.stderr.splitlines() == [
        "simulate_acquisition.py: error: photons must be a number above 0, not -3.0"
    ]

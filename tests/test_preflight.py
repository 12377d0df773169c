"""The preflight: closed forms, simulated acquisitions of known truth, and lights on bad samples."""

import json

import numpy as np
import pytest
import tifffile

import preflight as preflight_script
import preflight_sample
from besselflow.baselines.interpolation import interpolate
from besselflow.baselines.spectral import SpectralModel, posterior_mean
from besselflow.beam import box_profile, gaussian_profile
from besselflow.config import Config, Preflight, load_config
from besselflow.errors import InputError, ProblemsError
from besselflow.inr import fit as inr_fit
from besselflow.phantoms import draw_cells, draw_phantom
from besselflow.preflight import (
    Finding,
    cost,
    examine_subsample,
    in_words,
    read_examination,
    read_subsample,
    require_admission,
)
from besselflow.preflight.coverage import describe_coverage
from besselflow.preflight.signal import denoise, measure_signal, saturated_share
from besselflow.preflight.subsample import MOST_PROJECTIONS, crop_starts, read_crops
from besselflow.projection import AxialGrid, AxialProjection
from besselflow.report.lights import SampleFacts, light_of
from besselflow.report.preflight import describe_preflight, preflight_facts, tabulate
from besselflow.simulate import (
    Detector,
    simulate_acquisition,
    stage_positions,
    write_acquisition,
)

VOXEL_UM = (1.0, 1.0, 1.0)


class TestCoverage:
    def test_gaps_are_what_lies_between_the_beams(self):
        # Beams of 6 um every 8 um leave 2 um between them.
        found = describe_coverage(np.arange(5) * 8.0, box_profile(6.0))
        assert found.gaps_um == ((3.0, 5.0), (11.0, 13.0), (19.0, 21.0), (27.0, 29.0))
        assert found.depth_um == 38.0
        assert found.unseen == pytest.approx(8 / 38)
        assert found.overlap == pytest.approx(6 / 8)

    def test_touching_beams_leave_no_gap(self):
        found = describe_coverage(np.arange(5) * 6.0 + 0.1, box_profile(6.0))
        assert found.gaps_um == () and found.unseen == 0
        assert found.overlap == pytest.approx(1)
        assert found.unevenness == pytest.approx(1)

    def test_a_missing_projection_is_an_uneven_step(self):
        found = describe_coverage(np.delete(np.arange(8) * 5.0, 4), box_profile(20.0))
        assert found.largest_step_um == 10 and found.largest_step_at_um == 15
        assert found.unevenness == pytest.approx(2)
        assert found.unseen == 0 and found.overlap == pytest.approx(4)


class TestSaturation:
    def test_the_share_at_the_largest_value_of_the_type(self):
        counts = np.random.default_rng(0).integers(100, 60000, (3, 50, 50)).astype(np.uint16)
        counts[0, :5, :10] = 65535
        assert saturated_share(counts) == (50 / 7500, 65535.0)

    def test_twelve_bits_in_sixteen(self):
        counts = np.minimum(np.random.default_rng(0).exponential(800, 10000), 4095)
        counts = counts.astype(np.uint16)
        assert saturated_share(counts) == (np.mean(counts == 4095), 4095.0)

    def test_clipping_at_any_value(self):
        values = np.minimum(np.random.default_rng(0).exponential(800, 10000), 3000.0)
        assert saturated_share(values) == (np.mean(values == 3000), 3000.0)

    @pytest.mark.parametrize("dtype", [np.uint16, np.float32])
    def test_the_thin_end_of_a_distribution_is_not_saturated(self, dtype):
        values = np.random.default_rng(0).exponential(800, 10000).astype(dtype)
        assert saturated_share(values) == (0.0, None)


class TestCrops:
    def test_crops_tile_an_image_of_their_size(self):
        assert [*crop_starts(128, 64, 3)[0]] == [0, 64]

    def test_crops_are_spread_evenly_within_the_image(self):
        starts, size = crop_starts(512, 64, 3)
        assert size == 64 and len(starts) == 3
        assert starts[0] >= 0 and starts[-1] + size <= 512
        assert np.ptp(np.diff(starts)) <= 1 and np.diff(starts).min() > size
        assert crop_starts(40, 64, 3) == (np.array([0]), 40)

    @pytest.mark.parametrize("chunks", [(1, 1, 90, 80), (1, 1, 16, 80)])
    def test_what_is_read_is_what_lies_there(self, chunks):
        import dask.array as da

        values = np.random.default_rng(0).integers(0, 9, (2, 3, 90, 80))
        crops = read_crops(da.from_array(values, chunks=chunks), 20, 9)
        rows, columns = crop_starts(90, 20, 3)[0], crop_starts(80, 20, 3)[0]
        assert crops.shape == (2, 9, 3, 20, 20)
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                own = values[:, :, row : row + 20, column : column + 20]
                np.testing.assert_array_equal(crops[:, 3 * i + j], own)


class TestSignal:
    def operator(self, count=8):
        profile = box_profile(6.0)
        positions = 2.5 + 6.0 * np.arange(count)
        return AxialProjection.from_geometry(profile, positions, AxialGrid(0.0, 1.0, 6 * count))

    def test_the_density_of_scattered_structures_is_their_mean_number(self):
        # Blobs of equal brightness, scattered independently: mean^2 / variance of their number.
        rng = np.random.default_rng(0)
        for mean in (0.5, 3.0):
            blocks = rng.poisson(mean, (4, 8, 24, 24)) * 100.0
            crops = np.kron(blocks, np.ones((4, 4)))
            model = SpectralModel(1e6, 3.0, 1.0, 1e-3, crops.mean())
            found = measure_signal(crops, self.operator(), VOXEL_UM, model, True)
            assert found.density == pytest.approx(mean, rel=0.1)

    def test_an_unknown_offset_does_not_count_as_density(self):
        rng = np.random.default_rng(1)
        crops = np.kron(rng.poisson(0.5, (4, 8, 24, 24)) * 100.0, np.ones((4, 4)))
        model = SpectralModel(1e6, 3.0, 1.0, 1e-3, crops.mean())
        known = measure_signal(crops, self.operator(), VOXEL_UM, model, True)
        unknown = measure_signal(crops + 500, self.operator(), VOXEL_UM, model, False)
        assert unknown.density == pytest.approx(known.density, rel=0.05)

    def test_denoising_leaves_no_noise_of_a_sample_without_structure(self):
        noise = np.random.default_rng(0).normal(50, 4, (2, 8, 32, 32))
        model = SpectralModel(1e-3, 3.0, 2.0, 16.0, 50.0)
        clean = denoise(noise, self.operator(), VOXEL_UM, model)
        assert clean.std() < 0.2 and clean.mean() == pytest.approx(noise.mean())


class Bench:
    """Acquisitions on disk, as the rule gets them."""

    def __init__(self, folder):
        self.folder = folder

    def examine(
        self,
        volume,
        step=6.0,
        detector=None,
        profile=None,
        spoil=None,
        positions=None,
        config=None,
        name="sample",
    ):
        detector, profile = detector or Detector(), profile or box_profile(6.0)
        if positions is None:
            positions = stage_positions(len(volume), 1.0, profile, step)
        acquired = simulate_acquisition(volume, profile, positions, VOXEL_UM, detector, seed=2)
        if spoil is not None:
            spoil(acquired.counts)
        files = write_acquisition(self.folder, name, acquired, profile, VOXEL_UM, detector)
        self.acquired, self.positions, self.profile = acquired, positions, profile
        subsample = read_subsample(
            files.acquisition,
            files.stage_positions,
            None,
            str(files.beam_profile),
            VOXEL_UM,
            detector.offset,
            detector.gain,
            # With uneven steps, the distance of planes that the file states is not theirs.
            overrule=True,
        )
        return examine_subsample(subsample, name, config or Config())


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


@pytest.fixture(scope="module")
def vessels():
    return draw_phantom("vessels", (48, 96, 96), 7, VOXEL_UM)


def topics(found, light=None):
    return {each.topic for each in found.findings if light in (None, each.light)}


class TestLights:
    def test_a_good_sample_is_green(self, bench, vessels):
        found = bench.examine(vessels)
        assert found.light == "green" and found.findings == []
        assert found.snr > 5 and found.expected_psnr_db > 25 and found.density < 1

    def test_the_signal_to_noise_ratio_is_that_of_the_simulation(self, bench, vessels):
        detector = Detector(photons=100.0)
        found = bench.examine(vessels, detector=detector)
        photons = bench.acquired.photons
        bright, background = np.percentile(photons, 99.9), np.median(photons)
        noise = np.sqrt(bright + (detector.read_noise / detector.gain) ** 2)
        assert found.snr == pytest.approx((bright - background) / noise, rel=0.25)

    def test_a_dark_sample_is_red(self, bench, vessels):
        found = bench.examine(vessels, detector=Detector(photons=0.3))
        assert found.light == "red" and "signal" in topics(found, "red")
        assert "raise the laser power" in str(found.findings[0])

    def test_a_sample_without_light_is_red(self, bench, vessels):
        found = bench.examine(0 * vessels, detector=Detector(read_noise=0.0))
        assert topics(found) == {"signal"} and found.light == "red"
        assert found.expected_psnr_db is None and found.snr == 0

    def test_a_saturated_sample_is_red(self, bench, vessels):
        found = bench.examine(vessels, detector=Detector(photons=300.0, bit_depth=10))
        share = float(np.mean(bench.acquired.counts == 1023))
        assert share > 0.01
        assert found.saturated == pytest.approx(share, rel=0.3)
        assert topics(found, "red") == {"saturation"}
        text = str(next(each for each in found.findings if each.topic == "saturation"))
        assert "1023 counts" in text and "lower the laser power" in text

    def test_gaps_are_yellow_and_large_ones_red(self, bench, vessels):
        some, most = (bench.examine(vessels, step=step) for step in (8.0, 20.0))
        assert topics(some, "yellow") == {"coverage"}
        assert "coverage" in topics(most, "red")
        assert "reduce the step to 6 um" in str(some.findings[0])

    def test_dark_projections_are_named(self, bench, vessels):
        def close_shutter(counts):
            counts[2:4] = np.random.default_rng(0).normal(100, 5, counts[2:4].shape).round()

        found = bench.examine(vessels, spoil=close_shutter)
        assert topics(found) == {"projections"} and found.light == "yellow"
        assert "2 of 8 projections" in str(found.findings[0])
        assert "z = 14.5, 20.5 um" in str(found.findings[0])

    def test_a_missing_projection_is_yellow(self, bench, vessels):
        positions = np.delete(stage_positions(48, 1.0, box_profile(12.0), 3.0), 5)
        found = bench.examine(vessels, profile=box_profile(12.0), positions=positions)
        assert topics(found) == {"steps"} and found.light == "yellow"

    def test_crowded_cells_under_a_long_beam_are_too_dense(self, bench):
        cells = draw_cells((64, 96, 96), 4, VOXEL_UM, radius_um=4.0, crowding=0.5)
        short, long = (bench.examine(cells, profile=box_profile(length)) for length in (6.0, 32.0))
        assert long.density > 2.5 * short.density
        assert long.light == "red" and "density" in topics(long, "red")
        assert "use a beam of" in str(next(f for f in long.findings if f.topic == "density"))

    def test_thresholds_are_those_of_the_configuration(self, bench, vessels):
        config = load_config({"preflight": {"psnr_yellow": 99.0}})
        found = bench.examine(vessels, config=config)
        assert topics(found) == {"quality"} and found.light == "yellow"

    def test_equal_thresholds_leave_no_yellow(self, bench, vessels):
        low, high = (
            load_config({"preflight": {"psnr_yellow": psnr, "psnr_red": psnr}})
            for psnr in (5.0, 99.0)
        )
        assert bench.examine(vessels, config=low).light == "green"
        assert bench.examine(vessels, config=high).light == "red"

    def test_deep_acquisitions_are_judged_on_their_middle(self, bench):
        volume = draw_phantom("vessels", (240, 48, 48), 7, VOXEL_UM)
        found = bench.examine(volume)
        assert len(found.positions_um) > MOST_PROJECTIONS
        assert len(found.channels[0].signal.snr_by_projection) == len(found.positions_um)
        assert found.expected_psnr_db > 20


@pytest.mark.parametrize("kind", ["vessels", "neuron", "cells"])
@pytest.mark.parametrize("profile", [box_profile(6.0), gaussian_profile(8.0)])
def test_the_expected_quality_is_what_the_reconstruction_reaches(bench, kind, profile):
    volume = draw_phantom(kind, (48, 96, 96), 11, VOXEL_UM)
    detector = Detector()
    found = bench.examine(volume, profile=profile, detector=detector)
    measured, model = spectral_psnr(bench, volume, detector)
    assert found.expected_psnr_db == pytest.approx(measured, abs=4.0)
    assert model.noise_variance > 0


def spectral_psnr(bench, volume, detector):
    """Reconstruct by the spectral method, and score each slice."""
    from besselflow.baselines.spectral import fit_spectral_model

    positions, truth = bench.positions, detector.photons * volume
    intensity = (bench.acquired.counts - detector.offset) / detector.gain
    grid = AxialGrid(0.0, 1.0, len(volume))
    operator = AxialProjection.from_geometry(bench.profile, positions, grid)
    model = fit_spectral_model([intensity], operator, VOXEL_UM)
    found = posterior_mean(intensity, operator, model, VOXEL_UM)
    inside = (grid.centres_um >= positions[0]) & (grid.centres_um <= positions[-1])
    peak = truth.max()
    error = ((np.clip(found, 0, peak) - truth) ** 2).mean(axis=(1, 2))[inside]
    assert np.isfinite(interpolate(intensity, positions, grid.centres_um)).all()
    return float(np.mean(10 * np.log10(peak**2 / error))), model


class TestCost:
    def test_the_share_of_a_warm_start_is_that_of_the_fit(self):
        assert cost.WARM_SHARE == inr_fit._WARM_STEPS

    def estimate(self, bench, volume, **settings):
        values = {"validation": {"hold_out": 0}, **settings}
        found = bench.examine(volume, config=load_config(values))
        return found.core_seconds

    def test_more_work_takes_more_time(self, bench, vessels):
        once = self.estimate(bench, vessels, inr={"steps": 1000})
        twice = self.estimate(bench, vessels, inr={"steps": 2000})
        start = 4.0
        assert twice["inr"] - start == pytest.approx(2 * (once["inr"] - start))
        assert twice["spectral"] == once["spectral"]

    def test_the_published_network_is_trained_once_whatever_the_tiles(self):
        whole, tile = (64, 512, 256), (64, 128, 128)
        # Of large images one is seen at a time, of others four.
        assert cost.training_work(whole, load_config({})) == 2 * cost.training_work(
            tile, load_config({})
        )
        wide = load_config({"microdiffusion": {"channels": [64, 128, 128, 128]}})
        assert cost.training_work(tile, wide) == 4 * cost.training_work(tile, load_config({}))
        # Six noise levels, each with and without the condition.
        assert cost.work_of("microdiffusion", tile, load_config({})) == 12 * 64 * 128 * 128

    def test_only_the_chosen_methods_count(self, bench, vessels):
        found = self.estimate(bench, vessels, methods=["spectral"], final="spectral")
        assert set(found) == {"spectral", "other"}

    def test_a_record_of_an_older_version_is_still_read(self, bench, vessels, tmp_path):
        record = bench.examine(vessels, config=load_config({})).as_record()
        del record["memory_mb"]
        (tmp_path / "preflight.json").write_text(json.dumps(record))
        found = read_examination(tmp_path / "preflight.json")
        assert found.most_memory_mb is None and found.core_seconds == record["core_seconds"]
        assert tabulate([found])["memory_mb"].isna().all()
        assert dict(preflight_facts(found))["Memory of the full run"].startswith("not known")

    def test_memory_is_that_of_every_job_and_grows_with_the_tile(self, bench, vessels):
        def memory(**settings):
            return bench.examine(vessels, config=load_config(settings)).memory_mb

        usual, small = memory(), memory(tiling={"tile": 32, "halo": 8})
        assert {"fit_inr", "refine", "safeguard", "variational", "evaluate"} <= set(usual)
        assert small["variational"] < usual["variational"]
        assert small["evaluate"] == usual["evaluate"]
        assert min(small.values()) > 500, "no process of ours takes less"

    @pytest.mark.parametrize(
        ("seconds", "text"), [(0.2, "1 s"), (59, "59 s"), (90, "1.5 min"), (7200, "2.0 h")]
    )
    def test_durations_in_words(self, seconds, text):
        assert in_words(seconds) == text


class TestScripts:
    @pytest.fixture
    def record(self, tmp_path, vessels):
        bench = Bench(tmp_path / "data")
        bench.examine(vessels, step=8.0)
        files = tmp_path / "data"
        preflight_sample.main(
            files / "sample.ome.tif",
            files / "sample_stage.csv",
            None,
            str(files / "sample_beam.csv"),
            VOXEL_UM,
            100.0,
            10.0,
            "sample",
            Config(),
            tmp_path / "preflight.json",
        )
        return tmp_path / "preflight.json"

    def test_the_record_is_read_back(self, record):
        found = read_examination(record)
        assert found.light == "yellow" and found.seconds > 0
        assert json.loads(record.read_text())["coverage"]["step_um"] == 8.0
        assert json.loads(json.dumps(found.as_record())) == json.loads(record.read_text())
        section = describe_preflight(record)
        assert ("Depth never seen", "22 % of 46 µm") in section.facts

    def test_a_sample_is_left_out_from_its_light_on(self, record):
        found = read_examination(record)
        for stop_at in ("never", "red"):
            require_admission(found, stop_at)
        with pytest.raises(InputError, match=r"^preflight is yellow .* reduce the step to 6 um"):
            require_admission(found, "yellow")

    def test_table_and_page_list_every_sample(self, record, tmp_path, capsys):
        table, page = tmp_path / "preflight.tsv", tmp_path / "preflight.html"
        preflight_script.main([record], table, page)
        header, row = table.read_text().splitlines()
        assert row.startswith("sample\tyellow\t")
        assert header.split("\t")[-1] == "reasons" and "reduce the step" in row
        assert "reduce the step to 6 um" in page.read_text(encoding="utf-8")
        assert "YELLOW" in capsys.readouterr().err

    def test_pixels_that_are_no_numbers_are_refused(self, tmp_path, vessels):
        bench = Bench(tmp_path)
        bench.examine(vessels)
        data = bench.acquired.counts.astype(np.float32)
        data[3] = np.nan
        tifffile.imwrite(tmp_path / "nan.tif", data)
        with pytest.raises(InputError, match=r"nan.tif.*not finite"):
            read_subsample(
                tmp_path / "nan.tif",
                tmp_path / "sample_stage.csv",
                None,
                "box:6um",
                VOXEL_UM,
                None,
                None,
            )


@pytest.mark.parametrize(("light", "level"), [("red", "check"), ("yellow", "none")])
def test_a_red_preflight_turns_on_the_light_of_the_cohort_page(light, level):
    finding = Finding(light, "saturation", "2 % are saturated", "lower the laser power")
    facts = SampleFacts("done", "train", None, "spectral", preflight=[finding])
    assert light_of(facts).level == level
    if level == "check":
        assert light_of(facts).reason == "preflight: 2 % are saturated"


def test_thresholds_in_the_wrong_order_are_refused():
    with pytest.raises(ProblemsError, match="snr_red is above snr_yellow"):
        load_config({"preflight": {"snr_red": 5.0}})
    with pytest.raises(ProblemsError, match="unseen_red is below unseen_yellow"):
        load_config({"preflight": {"unseen_red": 0.01}})
    assert Preflight().stop_at == "never"

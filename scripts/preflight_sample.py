"""Check an acquisition before anything heavy is computed, from headers and a few crops of it."""

import time
from dataclasses import replace
from pathlib import Path

from besselflow.acquisition import Frames
from besselflow.config import Config, load_config
from besselflow.corrections import Stated
from besselflow.job import logger, run_script
from besselflow.preflight import (
    Examination,
    examine_subsample,
    in_words,
    read_subsample,
)
from besselflow.store import write_json


def main(
    acquisition: Path,
    stage_positions: Path | None,
    ground_truth: Path | None,
    beam_profile: str,
    voxel_size_um: tuple[float | None, float, float],
    offset: Stated,
    gain: Stated,
    sample: str,
    config: Config,
    record: Path,
    lateral_psf: str | None = None,
    frames: Frames = "average",
    overrule: bool = False,
) -> None:
    """Write what the preflight of one sample finds.

    Parameters
    ----------
    acquisition, stage_positions, ground_truth, beam_profile, voxel_size_um, offset, gain
    sample, lateral_psf, frames, overrule
        As in `scripts/preprocess.py`.
    config : Config
        Thresholds, and the settings of the full run.
    record : path
        JSON file to write.
    """
    started = time.perf_counter()
    subsample = read_subsample(
        acquisition,
        stage_positions,
        ground_truth,
        beam_profile,
        voxel_size_um,
        offset,
        gain,
        lateral_psf,
        config.tiling.halo,
        frames,
        overrule,
        config.preflight,
        config.corrections.given_flat_field,
    )
    found = examine_subsample(subsample, sample, config)
    found = replace(found, seconds=time.perf_counter() - started)
    announce(found)
    write_json(record, found.as_record())


def announce(found: Examination) -> None:
    """Log light, reasons and numbers."""
    logger.info("preflight: %s", found.light)
    for finding in found.findings:
        logger.warning("%s: %s", finding.light, finding)
    if found.expected_psnr_db is not None:
        logger.info(
            "signal-to-noise ratio %.3g, %.2g structures within the beam, expected PSNR of "
            "spectral %.0f dB",
            found.snr,
            found.density,
            found.expected_psnr_db,
        )
    logger.info(
        "the full run takes about %s of one core; this check took %.1f s",
        in_words(sum(found.core_seconds.values())),
        found.seconds,
    )


if __name__ == "__main__":
    snakemake = globals()["snakemake"]
    run_script(
        snakemake,
        main,
        acquisition=snakemake.input.acquisition,
        stage_positions=snakemake.input.get("stage_positions") or None,
        ground_truth=snakemake.input.get("ground_truth") or None,
        beam_profile=snakemake.params.beam["beam_profile"],
        lateral_psf=snakemake.params.beam.get("lateral_psf"),
        **snakemake.params.settings,
        **snakemake.params.reading,
        sample=snakemake.wildcards.sample,
        config=load_config(snakemake.params.config),
        record=snakemake.output.record,
    )

"""The preflight of one sample: everything that is measured, and the light that follows from it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from besselflow.baselines.spectral_fit import fit_spectral_model
from besselflow.config import Config
from besselflow.held_out import left_out_projections
from besselflow.preflight.cost import estimate_core_seconds, estimate_memory_mb
from besselflow.preflight.coverage import Coverage, describe_coverage
from besselflow.preflight.expectation import Expectation, expect_quality
from besselflow.preflight.lights import Channel, Finding, Light, judge, worst
from besselflow.preflight.signal import Signal, measure_signal, saturated_share
from besselflow.preflight.subsample import Subsample, middle_projections


@dataclass(frozen=True)
class Examination:
    """What the preflight found of one sample.

    Attributes
    ----------
    sample : str
        Its name.
    light : str
        ``green``, ``yellow`` or ``red``.
    findings : list of Finding
        The reasons, the worst first.
    positions_um : list of float
        Stage positions, increasing.
    coverage : Coverage
        How the beams cover the depth.
    channels : list of Channel
        What was measured of each.
    core_seconds : dict
        Stage -> estimated processor seconds of the full run.
    time_point : int
        Time point that was read.
    share_read : float
        Share of the pixels of its projections that was used.
    seconds : float
        How long the preflight took, reading included.
    memory_mb : dict
        Stage -> estimated megabytes of one of its jobs; empty in records of versions before it.
    """

    sample: str
    light: Light
    findings: list[Finding]
    positions_um: list[float]
    coverage: Coverage
    channels: list[Channel]
    core_seconds: dict[str, float]
    time_point: int
    share_read: float
    seconds: float = 0.0
    memory_mb: dict[str, float] = field(default_factory=dict)

    @property
    def expected_psnr_db(self) -> float | None:
        """Lowest expected PSNR of any channel."""
        values = [each.expectation.psnr_db for each in self.channels if each.expectation]
        return min(values, default=None)

    @property
    def most_memory_mb(self) -> float | None:
        """Estimated memory of the largest job."""
        return max(self.memory_mb.values(), default=None)

    @property
    def snr(self) -> float:
        """Lowest signal-to-noise ratio of any channel; 0 where one holds no image."""
        return min(each.signal.snr if each.signal else 0.0 for each in self.channels)

    @property
    def density(self) -> float | None:
        """Highest density of any channel."""
        return max((each.signal.density for each in self.channels if each.signal), default=None)

    @property
    def saturated(self) -> float:
        """Highest share of saturated pixels of any channel."""
        return max(each.saturated for each in self.channels)

    def as_record(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        record = asdict(self)
        for channel in record["channels"]:
            if channel["signal"] is not None:
                numbers = channel["signal"]["snr_by_projection"]
                channel["signal"]["snr_by_projection"] = [float(f"{x:.6g}") for x in numbers]
        return record


def read_examination(path: Path | str) -> Examination:
    """Read what `Examination.as_record` gave, from a JSON file."""
    record = json.loads(Path(path).read_text(encoding="utf-8"))
    record["findings"] = [Finding(**each) for each in record["findings"]]
    coverage = record["coverage"]
    coverage["gaps_um"] = tuple(tuple(gap) for gap in coverage["gaps_um"])
    record["coverage"] = Coverage(**coverage)
    for number, each in enumerate(record["channels"]):
        if each["signal"] is not None:
            each["signal"]["snr_by_projection"] = np.array(each["signal"]["snr_by_projection"])
            each["signal"] = Signal(**each["signal"])
        if each["expectation"] is not None:
            each["expectation"] = Expectation(**each["expectation"])
        record["channels"][number] = Channel(**each)
    return Examination(**record)


def examine_subsample(subsample: Subsample, sample: str, config: Config) -> Examination:
    """Measure, judge and estimate.

    Parameters
    ----------
    subsample : Subsample
        Crops of the acquisition.
    sample : str
        Name of the sample.
    config : Config
        Thresholds, and the settings of the full run.
    """
    measured, settings = subsample.measured, config.preflight
    coverage = describe_coverage(measured.positions_um, measured.profile)
    offset_known = subsample.offset is not None
    channels = [
        _measure_channel(subsample, c, config, offset_known) for c in range(len(subsample.counts))
    ]
    findings = judge(channels, coverage, measured.positions_um, settings, offset_known)
    held_out = left_out_projections(len(measured.positions_um), config.validation.hold_out)
    return Examination(
        sample=sample,
        light=worst([finding.light for finding in findings]),
        findings=findings,
        positions_um=measured.positions_um.tolist(),
        coverage=coverage,
        channels=channels,
        core_seconds=estimate_core_seconds(measured, config, held_out=len(held_out) > 0),
        memory_mb=estimate_memory_mb(measured, config),
        time_point=subsample.time_point,
        share_read=subsample.share,
    )


def _measure_channel(
    subsample: Subsample, channel: int, config: Config, offset_known: bool
) -> Channel:
    counts = subsample.counts[channel]
    share, ceiling = saturated_share(counts)
    intensity = subsample.intensity[channel]
    chosen, which = middle_projections(subsample.measured)
    crops = intensity[:, which]
    if not np.ptp(crops, axis=(2, 3)).any():
        return Channel(share, ceiling, None, None)
    operator, voxel_size_um = chosen.operator, chosen.voxel_size_um
    model = fit_spectral_model(crops, operator, voxel_size_um, config.spectral.anisotropy)
    signal = measure_signal(intensity, operator, voxel_size_um, model, offset_known)
    expectation = expect_quality(
        crops, operator, chosen.grid, chosen.positions_um, voxel_size_um, model
    )
    return Channel(share, ceiling, signal, expectation)

"""What the pages show of the preflight: a light with its reasons, and the table of all samples."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from besselflow.preflight import (
    LIGHTS,
    TOLERANCE,
    Examination,
    in_words,
    read_examination,
)
from besselflow.report.figures import draw_signal_along_depth
from besselflow.report.page import ThemedImage, format_number, themed_figure, write_page

COLUMNS = [
    *("sample", "light", "snr", "saturated", "faint", "density", "unseen", "overlap"),
    *("expected_psnr_db", "core_seconds", "memory_mb", "reasons"),
]
"""Columns of `preflight.tsv`."""


def read_preflight(folder: Path) -> Examination | None:
    """Read what the preflight found of the sample of a folder of results, where it was run."""
    record = folder / "preflight.json"
    return read_examination(record) if record.exists() else None


def count_faint(found: Examination) -> int:
    """Return the highest number of faint or dark projections of any channel."""
    return max((len(each.signal.faint) for each in found.channels if each.signal), default=0)


def tabulate(found: Sequence[Examination]) -> pd.DataFrame:
    """Return one row of `COLUMNS` per sample, the worst lights first."""
    rows = [
        (
            each.sample,
            each.light,
            each.snr,
            each.saturated,
            count_faint(each),
            each.density,
            each.coverage.unseen,
            each.coverage.overlap,
            each.expected_psnr_db,
            sum(each.core_seconds.values()),
            each.most_memory_mb,
            " | ".join(str(finding) for finding in each.findings),
        )
        for each in _by_light(found)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def format_table(found: Sequence[Examination]) -> str:
    """Return the lights with their reasons as text for a terminal."""
    width = max(len(each.sample) for each in found)
    lines = []
    for each in _by_light(found):
        lines.append(f"{each.sample:{width}s}  {each.light.upper():6s}  {_in_short(each)}")
        lines += [f"{'':{width}s}  - {finding}" for finding in each.findings]
    return "\n".join(lines)


def _by_light(found: Sequence[Examination]) -> list[Examination]:
    return sorted(found, key=lambda each: (-LIGHTS.index(each.light), each.sample))


def _in_short(found: Examination) -> str:
    return (
        f"SNR {found.snr:.1f}, density {format_number(found.density)}, expected PSNR "
        f"{format_number(found.expected_psnr_db, 0)} dB, {core_time(found)} of one core"
    )


def core_time(found: Examination) -> str:
    """Return the estimated processor time of the full run in words."""
    return in_words(sum(found.core_seconds.values()))


def most_memory(found: Examination) -> str:
    """Return the estimated memory of the largest job of the full run in words."""
    most = found.most_memory_mb
    return "not known" if most is None else f"{most / 1000:.1f} GB"


def preflight_facts(found: Examination) -> list[tuple[str, str]]:
    """List what was measured, as pairs of a name and a value with its unit."""
    coverage, facts = found.coverage, []
    for number, channel in enumerate(found.channels):
        where = f", channel {number}" if len(found.channels) > 1 else ""
        if channel.signal is not None:
            signal = channel.signal
            facts += [
                ("Signal to noise" + where, f"{signal.snr:.1f} (bright structures)"),
                (
                    "Density" + where,
                    f"{signal.density:.2g} structures within the length of the beam",
                ),
                (
                    "Faint projections" + where,
                    f"{len(signal.faint)} of {len(found.positions_um)}",
                ),
            ]
        facts.append(("Saturated" + where, f"{100 * channel.saturated:.2g} % of the pixels"))
        if channel.expectation is not None:
            expected = channel.expectation
            facts.append(
                (
                    "Expected PSNR of spectral" + where,
                    f"{expected.psnr_db:.0f} dB, give or take {expected.spread_db:.0f} dB",
                )
            )
    unseen = f"{100 * coverage.unseen:.0f} % of {coverage.depth_um:g} µm"
    return [
        *facts,
        ("Depth never seen", unseen if coverage.gaps_um else "none"),
        ("Overlap of beams", f"the beam is as long as {coverage.overlap:.2g} of the steps"),
        (
            "Time of the full run",
            f"about {core_time(found)} of one core, within a factor of {TOLERANCE:g}; without "
            f"the training of a prior",
        ),
        ("Memory of the full run", f"{most_memory(found)} at most, for its largest job"),
    ]


@dataclass(frozen=True)
class PreflightSection:
    """What the page of a sample shows of its preflight."""

    found: Examination
    facts: list[tuple[str, str]]
    chart: ThemedImage | None


def describe_preflight(record: Path | str | None) -> PreflightSection | None:
    """Prepare the section of a sample's page; None where no preflight was run."""
    if record is None:
        return None
    found = read_examination(record)
    return PreflightSection(found, preflight_facts(found), signal_chart(found))


def signal_chart(found: Examination) -> ThemedImage | None:
    """Draw the signal-to-noise ratio along the depth, where it is known; None else."""
    curves = {
        number: channel.signal.snr_by_projection
        for number, channel in enumerate(found.channels)
        if channel.signal is not None
    }
    if not curves or len(found.positions_um) < 2:
        return None
    return themed_figure(partial(draw_signal_along_depth, np.array(found.positions_um), curves))


def write_preflight_page(path: Path | str, found: Sequence[Examination], table: Path | str) -> None:
    """Write the page of the preflight of all samples.

    Parameters
    ----------
    path : path
        HTML file to write.
    found : sequence of Examination
        All samples.
    table : path
        The same as a table, to link to.
    """
    counts = {light: sum(each.light == light for each in found) for light in LIGHTS}
    total = sum(sum(each.core_seconds.values()) for each in found)
    write_page(
        path,
        "preflight.html.j2",
        title="Preflight · BesselFlow",
        counts=counts,
        rows=[
            {
                "found": each,
                "faint": count_faint(each),
                "time": core_time(each),
                "memory": most_memory(each),
                "facts": preflight_facts(each),
            }
            for each in _by_light(found)
        ],
        total=in_words(total),
        tolerance=TOLERANCE,
        table_link=Path(os.path.relpath(table, Path(path).parent)).as_posix(),
    )

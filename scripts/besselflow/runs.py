"""One run of the workflow: its configuration, its samples, and which of them are left out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from besselflow.acquisition import read_stage_positions
from besselflow.beam import parse_beam_profile, read_lateral_psf
from besselflow.checks import CheckedSheet, check_samples, describe_rejections
from besselflow.config import Config, load_config
from besselflow.diffusion.geometry import Geometry
from besselflow.errors import InputError
from besselflow.failures import Failure
from besselflow.held_out import FEWEST_PROJECTIONS, left_out_projections
from besselflow.sample_sheet import Sample, read_sheet
from besselflow.slice_spacing import with_spacing
from besselflow.store import write_json

_MEMORY = ".exclusions.json"


@dataclass(frozen=True)
class Run:
    """What the workflow works on.

    Attributes
    ----------
    config : Config
        Validated configuration.
    tests, trains : dict of str to Sample
        Samples to reconstruct and to learn from that passed all checks.
    checked : CheckedSheet or None
        The findings; None in a process that works for a run that another process checked.
    rejected : dict of str to list of str
        Excluded sample -> its problems as sentences.
    """

    config: Config
    tests: dict[str, Sample]
    trains: dict[str, Sample]
    checked: CheckedSheet | None
    rejected: dict[str, list[str]]

    @classmethod
    def prepare(cls, values: dict[str, Any], check_files: bool = True) -> Run:
        """Validate the configuration and the sheet, and check the files of all samples.

        Parameters
        ----------
        values : dict
            Configuration values.
        check_files : bool
            False in the processes of single jobs: they leave out the samples that the controlling
            process left out, instead of opening all files again.

        Raises
        ------
        InputError
            Configuration or sheet are unusable, or no sample is left to reconstruct.
        """
        config = load_config(values)
        sheet = read_sheet(config.samples)
        if check_files:
            checked = check_samples(sheet)
            rejected = {
                name: [str(problem) for problem in problems]
                for name, problems in checked.rejected.items()
            }
            tests, trains = checked.tests, checked.trains
            if not tests:
                raise InputError(describe_rejections(checked))
        else:
            checked = None
            memory = Path(config.results) / _MEMORY
            rejected = json.loads(memory.read_text(encoding="utf-8")) if memory.exists() else {}
            tests = [sample for sample in sheet.tests if sample.name not in rejected]
            trains = [sample for sample in sheet.trains if sample.name not in rejected]
        return cls(
            config,
            {sample.name: sample for sample in tests},
            {sample.name: sample for sample in trains},
            checked,
            rejected,
        )

    def remember_exclusions(self) -> None:
        """Tell the processes of this run's jobs which samples are left out."""
        write_json(Path(self.config.results) / _MEMORY, self.rejected)

    def describe_rejections(self) -> str:
        """Return the text that lists all excluded samples with their problems."""
        return describe_rejections(self.checked) if self.checked and self.rejected else ""

    def reasons(self) -> dict[str, str]:
        """Return one text per excluded sample."""
        return {name: "\n".join(problems) for name, problems in self.rejected.items()}

    def geometry_of(self, sample: str) -> Geometry:
        """Return the geometry that a sample's prior is trained for."""
        row = self.tests[sample]
        positions = read_stage_positions(row.stage_positions)
        voxel_size_um, kernel = with_spacing(row.voxel_size_um, positions), None
        if row.lateral_psf is not None:
            reach = self.config.tiling.halo
            kernel = read_lateral_psf(
                row.lateral_psf, row.beam_profile, voxel_size_um[1:], reach
            ).kernel
        return Geometry.of(parse_beam_profile(row.beam_profile), positions, voxel_size_um, kernel)

    def geometry_of_key(self, key: str) -> Geometry:
        """Return the geometry with an identifier, which one of the samples has."""
        found = (self.geometry_of(sample) for sample in self.tests)
        return next(geometry for geometry in found if geometry.key == key)

    def why_not_held_out(self, sample: str) -> str | None:
        """Say in a sentence why a sample's methods can't be ranked by prediction, or None."""
        if not self.config.validation.hold_out:
            return "No projection was withheld: validation.hold_out is 0 in the configuration."
        if not self.held_out_methods:
            return "No projection was withheld: none of validation.methods was run."
        count = len(read_stage_positions(self.tests[sample].stage_positions))
        if not left_out_projections(count, self.config.validation.hold_out):
            return (
                f"No projection was withheld: of the {count} that this sample has, all are needed "
                f"(a ranking takes at least {FEWEST_PROJECTIONS})."
            )
        return None

    @property
    def held_out_methods(self) -> list[str]:
        """Methods that are ranked by how well they predict withheld projections."""
        chosen = self.config.validation.methods
        return [method for method in self.config.methods if not chosen or method in chosen]

    @property
    def steps_um(self) -> dict[str, float]:
        """Median distance of the stage positions of every sample to reconstruct."""
        positions = {
            name: np.sort(read_stage_positions(row.stage_positions))
            for name, row in self.tests.items()
        }
        # Rounded, so that stages that jitter compare equal.
        return {
            name: float(f"{np.median(np.diff(at)):.4g}") if len(at) > 1 else 0.0
            for name, at in positions.items()
        }

    def row_of(self, sample: str) -> dict[str, str]:
        """Return a sample's row of the sheet as text, for its report."""
        row = self.tests[sample]
        positions = read_stage_positions(row.stage_positions)
        z, y, x = with_spacing(row.voxel_size_um, positions)
        note = " (z by default)" if row.voxel_size_um[0] is None else ""
        cells = {
            "acquisition": row.acquisition,
            "stage_positions": row.stage_positions,
            "beam_profile": row.beam_profile,
            "voxel size (z, y, x) in um": f"{z:g}, {y:g}, {x:g}{note}",
            "ground_truth": row.ground_truth,
            "offset": row.offset,
            "gain": row.gain,
            "lateral_psf": row.lateral_psf,
            **row.extra,
        }
        return {key: str(value) for key, value in cells.items() if value not in (None, "")}

    def write_cohort_report(self, failed: list[Failure]) -> None:
        """Write the cohort page of a run in which something failed.

        Parameters
        ----------
        failed : list of Failure
            Jobs that failed.
        """
        from besselflow.report import SampleStatus, write_cohort_report

        results = Path(self.config.results)
        first = {failure.sample: failure for failure in reversed(failed) if failure.sample}
        shared = next((failure for failure in failed if failure.sample is None), None)
        statuses = []
        for name in self.tests:
            failure = first.get(name)
            if failure is None and not (results / name / "report.html").exists():
                failure = shared
            if failure is not None:
                statuses.append(
                    SampleStatus(name, "test", "failed", failure.stage, failure.reason, failure.log)
                )
            elif (results / name / "report.html").exists():
                statuses.append(SampleStatus(name, "test", "done", None, None, None))
            else:
                statuses.append(
                    SampleStatus(
                        name, "test", "failed", None, "the run stopped before it was done", None
                    )
                )
        for name, reason in self.reasons().items():
            statuses.append(
                SampleStatus(name, "test", "excluded", "check of the input", reason, None)
            )
        for name in self.trains:
            statuses.append(SampleStatus(name, "train", "done", None, None, None))
        write_cohort_report(
            results / "report.html",
            results / "metrics.tsv",
            results,
            statuses,
            self.config.final,
        )

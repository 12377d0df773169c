"""One run of the workflow: its configuration, its samples, and which of them are left out."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from besselflow.acquisition import open_acquisition
from besselflow.beam import parse_beam_profile, read_lateral_psf
from besselflow.beam.spec import file_of
from besselflow.checks import CheckedSheet, check_samples, describe_rejections
from besselflow.config import Config, load_config
from besselflow.corrections.flat_field import read_flat_field
from besselflow.diffusion.geometry import Geometry
from besselflow.diffusion.names import training_item, volume_name
from besselflow.errors import InputError
from besselflow.failures import ADMISSION, Failure
from besselflow.fingerprint import fingerprint
from besselflow.held_out import FEWEST_PROJECTIONS, left_out_projections
from besselflow.landmarks import Landmarks, decode
from besselflow.placeholders import REMEDY, placeholder_in
from besselflow.sample_sheet import Sample, read_sheet
from besselflow.slice_spacing import with_spacing
from besselflow.stated import resolve
from besselflow.store import write_json
from besselflow.weights import load_weights

SHIPPED_PRIOR = Path(__file__).parents[2] / "workflow" / "priors" / "phantoms.safetensors"
"""The prior that comes with BesselFlow; its model card lies beside it."""

_MEMORY = ".exclusions.json"
_KNOWN = ".known.json"
_COMPARED = ".compared.json"
_PRIORS = ("auto", "train", "own", "shipped")
_OWN = "own-"
_FEWEST_PHANTOMS = 12


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
        prior = config.prior.weights if "diffusion" in config.methods else "auto"
        _check_prior(prior)
        _check_placeholders(config)
        sheet = read_sheet(config.samples)
        if check_files:
            _check_writable(Path(config.results))
            flat_field = config.corrections.given_flat_field
            _check_flat_field(flat_field)
            length = config.corrections.depth_attenuation
            checked = check_samples(
                sheet,
                flat_field,
                None if isinstance(length, str) else length,
                _read_json(Path(config.results) / _COMPARED, []),
            )
            rejected = {
                name: [str(problem) for problem in problems]
                for name, problems in checked.rejected.items()
            }
            tests, trains = checked.tests, checked.trains
            if not tests:
                raise InputError(describe_rejections(checked))
            if "diffusion" in config.methods and _resolved(prior, trains) == "shipped":
                _check_shipped()
            _check_leak(prior, tests)
        else:
            checked = None
            rejected = _read_json(Path(config.results) / _MEMORY, {})
            tests, trains = (
                _remembered(samples, rejected, Path(config.results))
                for samples in (sheet.tests, sheet.trains)
            )
        return cls(
            config,
            {sample.name: sample for sample in tests},
            {sample.name: sample for sample in trains},
            checked,
            rejected,
        )

    def remember_exclusions(self) -> None:
        """Tell the processes of this run's jobs which samples are left out, and what is known."""
        write_json(Path(self.config.results) / _MEMORY, self.rejected)
        known = {
            name: {
                "voxel_size_um": sample.voxel_size_um,
                "positions_um": sample.positions_um,
                "acquisition_files": [str(path) for path in sample.acquisition_files],
                "ground_truth_files": [str(path) for path in sample.ground_truth_files],
            }
            for name, sample in (self.tests | self.trains).items()
        }
        write_json(Path(self.config.results) / _KNOWN, known)
        memory = Path(self.config.results) / _COMPARED
        compared = sorted(self.checked.compared) if self.checked else []
        if compared and compared != _read_json(memory, []):
            write_json(memory, compared)

    def describe_rejections(self) -> str:
        """Return the text that lists all excluded samples with their problems."""
        return describe_rejections(self.checked) if self.checked and self.rejected else ""

    def reasons(self) -> dict[str, str]:
        """Return one text per excluded sample."""
        return {name: "\n".join(problems) for name, problems in self.rejected.items()}

    @property
    def extras(self) -> dict[str, dict[str, str]]:
        """Further columns of the sheet by sample to reconstruct, for the cohort's page."""
        return {name: dict(sample.extra) for name, sample in self.tests.items()}

    def positions_of(self, sample: str) -> np.ndarray:
        """Return the stage positions of a sample in micrometres, in the order of its file."""
        return np.array(self.tests[sample].positions_um)

    def geometry_of(self, sample: str) -> Geometry:
        """Return the geometry that a sample's prior is trained for."""
        row = self.tests[sample]
        positions = self.positions_of(sample)
        voxel_size_um, kernel = with_spacing(row.voxel_size_um, positions), None
        if row.lateral_psf is not None:
            reach = self.config.tiling.halo
            kernel = read_lateral_psf(
                row.lateral_psf, row.beam_profile, voxel_size_um[1:], reach
            ).kernel
        return Geometry.of(parse_beam_profile(row.beam_profile), positions, voxel_size_um, kernel)

    def geometry_of_prior(self, key: str) -> Geometry:
        """Return the geometry that a prior of this run, one of `trained_priors`, is trained for."""
        sample = next(name for name in self.tests if self._key_of_prior(name) == key)
        return self.geometry_of(sample)

    def _key_of_prior(self, sample: str) -> str:
        if self._chosen_prior == "own":
            return f"{_OWN}{sample}"
        return self.geometry_of(sample).key

    @property
    def _chosen_prior(self) -> str:
        return _resolved(self.config.prior.weights, self.trains)

    @property
    def learns_from_samples(self) -> bool:
        """Whether priors are trained on the samples that they are for."""
        return "diffusion" in self.config.methods and self._chosen_prior == "own"

    @property
    def trained_priors(self) -> list[str]:
        """Identifiers of the priors that this run trains: one per geometry, or one per sample."""
        if self._chosen_prior not in ("train", "own"):
            return []
        return sorted({self._key_of_prior(sample) for sample in self.tests})

    def prior_of(self, sample: str) -> Path:
        """Return where the prior of a sample lies, or will lie once it is trained."""
        chosen = self._chosen_prior
        if chosen == "shipped":
            return SHIPPED_PRIOR
        if chosen not in ("train", "own"):
            return Path(chosen)
        return Path(self.config.results) / "priors" / f"{self._key_of_prior(sample)}.safetensors"

    def training_items(self, key: str) -> list[str]:
        """Return what a prior, one of `trained_priors`, is trained on.

        Besides phantoms, these are acquisitions of the `role: train` samples or, seen along either
        lateral axis, the INR of its own sample.
        """
        count = self.config.prior.phantoms
        if key.startswith(_OWN):
            known = [f"{key}-{axis}" for axis in ("y", "x")]
        else:
            numbers = range(1, self.config.prior.acquisitions + 1)
            known = [training_item(name, number) for number in numbers for name in self.trains]
            count = count if known else max(count, _FEWEST_PHANTOMS)
        return known + [f"phantom-{number}" for number in range(count)]

    def why_not_held_out(self, sample: str) -> str | None:
        """Say in a sentence why a sample's methods can't be ranked by prediction, or None."""
        if not self.config.validation.hold_out:
            return "No projection was withheld: validation.hold_out is 0 in the configuration."
        if not self.held_out_methods:
            return "No projection was withheld: none of validation.methods was run."
        count = len(self.positions_of(sample))
        if not left_out_projections(count, self.config.validation.hold_out):
            return (
                f"No projection was withheld: of the {count} that this sample has, all are needed "
                f"(a ranking takes at least {FEWEST_PROJECTIONS})."
            )
        return None

    @property
    def held_out_methods(self) -> list[str]:
        """Methods that are ranked by how well they predict withheld projections."""
        return self.config.ranked_methods

    @property
    def steps_um(self) -> dict[str, float]:
        """Median distance of the stage positions of every sample to reconstruct."""
        positions = {name: np.sort(self.positions_of(name)) for name in self.tests}
        # Rounded, so that stages that jitter compare equal.
        return {
            name: float(f"{np.median(np.diff(at)):.4g}") if len(at) > 1 else 0.0
            for name, at in positions.items()
        }

    @property
    def beams(self) -> dict[str, str]:
        """What the beam of every sample to reconstruct is called: equal beams are called alike."""
        samples = list(self.tests.values())
        profiles = [parse_beam_profile(sample.beam_profile) for sample in samples]
        keys = [
            Geometry.of(profile, np.zeros(2), (1.0, 1.0, 1.0)).key + (sample.lateral_psf or "")
            for profile, sample in zip(profiles, samples, strict=True)
        ]
        named: dict[str, tuple[str, str]] = {}
        for key, profile, sample in zip(keys, profiles, samples, strict=True):
            file = file_of(sample.beam_profile)
            own = sample.beam_profile if file is None else file.name
            named.setdefault(key, (f"{round(profile.fwhm_um, 1):g} µm", own))
        lengths = [length for length, _ in named.values()]
        names = {
            key: length if lengths.count(length) == 1 else f"{length} ({own})"
            for key, (length, own) in named.items()
        }
        return {sample.name: names[key] for sample, key in zip(samples, keys, strict=True)}

    def row_of(self, sample: str) -> dict[str, str]:
        """Return a sample's row of the sheet as text, for its report."""
        row = self.tests[sample]
        positions = self.positions_of(sample)
        z, y, x = with_spacing(row.voxel_size_um, positions)
        note = " (z by default)" if row.voxel_size_um[0] is None else ""
        cells = {
            "acquisition": row.acquisition,
            "stage_positions": row.stage_positions or "as the acquisition states them",
            "beam_profile": row.beam_profile,
            "voxel size (z, y, x) in um": f"{z:g}, {y:g}, {x:g}{note}",
            "ground_truth": row.ground_truth,
            "offset": row.offset,
            "gain": row.gain,
            "lateral_psf": row.lateral_psf,
            "frames": "time" if row.frames == "time" else None,
            "overrule": "yes" if row.overrule else None,
            **row.extra,
        }
        return {key: str(value) for key, value in cells.items() if value not in (None, "")}

    @property
    def flat_fields(self) -> Path | None:
        """Folder of the flat fields that the run estimates of its acquisitions, where it does."""
        if self.config.corrections.flat_field != "auto":
            return None
        return Path(self.config.results) / "flat_field"

    def describe_kept_flat_fields(self) -> str | None:
        """Say that what an earlier run estimated is kept, where the sheet is another one now."""
        if self.flat_fields is None or not self.flat_fields.exists():
            return None
        from besselflow.corrections.estimated_fields import read_estimates

        kept = read_estimates(self.flat_fields)
        changes = kept.changes_since(self.tests.values(), self.rejected)
        if changes is None:
            return None
        return (
            f"The flat field in {self.flat_fields} was estimated before the sheet was changed "
            f"({changes}), and is kept, so that finished samples stay as they are. To estimate it "
            "again, add --forcerun estimate_shading: then all samples are reconstructed again."
        )

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
            failure, extra = first.get(name), self.tests[name].extra
            if failure is None and not (results / name / "report.html").exists():
                failure = shared
            if failure is not None:
                status = "excluded" if failure.stage == ADMISSION else "failed"
                statuses.append(
                    SampleStatus(
                        name, "test", status, failure.stage, failure.reason, failure.log, extra
                    )
                )
            elif (results / name / "report.html").exists():
                statuses.append(SampleStatus(name, "test", "done", extra=extra))
            else:
                statuses.append(
                    SampleStatus(
                        name,
                        "test",
                        "failed",
                        reason="the run stopped before it was done",
                        extra=extra,
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
            self.flat_fields if self.flat_fields and self.flat_fields.exists() else None,
        )


def _remembered(samples: tuple[Sample, ...], rejected: dict, results: Path) -> list[Sample]:
    """Return the samples that are not left out, with what the controlling process knows of them."""
    known = _read_json(results / _KNOWN, {})
    found = []
    for sample in samples:
        if sample.name in rejected:
            continue
        facts = known.get(sample.name)
        if facts is None:
            found.append(resolve(sample))
            continue
        positions = facts["positions_um"]
        found.append(
            replace(
                sample,
                voxel_size_um=tuple(facts["voxel_size_um"]),
                positions_um=None if positions is None else tuple(positions),
                acquisition_files=tuple(map(Path, facts["acquisition_files"])),
                ground_truth_files=tuple(map(Path, facts["ground_truth_files"])),
            )
        )
    return found


def _read_json(path: Path, otherwise: Any) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else otherwise


def _check_prior(chosen: str) -> None:
    """Complain about a prior that is not there, before anything is computed."""
    if chosen in _PRIORS or os.path.isfile(chosen):
        return
    raise InputError(
        f'prior.weights in the configuration: "{chosen}" is no file; give the path of a '
        ".safetensors file from the folder priors of earlier results, or one of "
        + ", ".join(_PRIORS)
    )


def _check_placeholders(config: Config) -> None:
    """Complain about paths that the workflow engine would not take as they stand."""
    for key, path in (
        ("results", config.results),
        ("prior.weights", config.prior.weights),
        ("corrections.flat_field", config.corrections.flat_field),
    ):
        found = placeholder_in(path)
        if found:
            raise InputError(
                f'{key} in the configuration: {found} in "{path}" means a placeholder to the '
                f"workflow engine; {REMEDY}"
            )


def _check_flat_field(chosen: str | None) -> None:
    """Complain about a flat field that can't be used, before anything is computed."""
    if chosen is None:
        return
    try:
        read_flat_field(chosen)
    except InputError as error:
        raise InputError(f"corrections.flat_field in the configuration: {error}") from None


def _resolved(chosen: str, trains: Collection) -> str:
    if chosen == "auto":
        return "train" if trains else "shipped"
    return chosen


def _check_shipped() -> None:
    try:
        load_weights(SHIPPED_PRIOR)
    except Exception as error:
        raise InputError(
            f"{SHIPPED_PRIOR}: the prior that comes with BesselFlow can't be read ({error}); "
            "restore the file from the repository, or choose another with the key prior.weights"
        ) from error


def _check_writable(results: Path) -> None:
    """Complain about a folder that nothing can be written to, before anything is computed."""
    place = next(path for path in (results, *results.absolute().parents) if os.path.exists(path))
    if not os.access(place, os.W_OK):
        raise InputError(
            f'results in the configuration: "{results}" can\'t be written, since {place} is '
            "read-only; make it writable, or choose another folder"
        )


def _check_leak(chosen: str, tests: list[Sample]) -> None:
    """Refuse a prior from elsewhere that has learnt from the ground truth of a test sample."""
    if chosen in _PRIORS:
        return
    try:
        info = json.loads(load_weights(chosen)[1]["info"])
        names = {digest: name for name, digest in info.get("digests", {}).items()}
        parts = {name: decode(text) for name, text in info.get("landmarks", {}).items()}
    except Exception as error:
        raise InputError(
            f'prior.weights in the configuration: "{chosen}" is not a prior ({error}); give the '
            "path of a .safetensors file from the folder priors of earlier results"
        ) from error
    known = Landmarks(parts)
    for sample in tests if names or parts else ():
        if sample.ground_truth is None:
            continue
        for channel in open_acquisition(sample.ground_truth).data[0]:
            volume = np.asarray(channel)
            name = names.get(fingerprint(volume.astype(np.float32))) or known.found_in(volume)
            if name is not None:
                raise InputError(
                    f'prior.weights in the configuration: "{chosen}" was trained on '
                    f'"{volume_name(name)}", '
                    f"which shares voxels with the ground truth of the test sample "
                    f'"{sample.name}" ({sample.ground_truth}), and would flatter its scores; '
                    "choose another prior, or leave out the sample"
                )

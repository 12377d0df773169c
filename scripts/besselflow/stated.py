"""What the sheet and the files of a sample state together: stage positions and voxel size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from besselflow.acquisition import Acquisition, open_acquisition, read_stage_positions
from besselflow.errors import InputError
from besselflow.sample_sheet import VOXEL_COLUMNS, Sample

TOLERANCE = 0.05
"""How much sheet and file may differ: relative to a voxel size, or to the step of the stage."""

_SOME = 4
# More files than these would slow down the planning of jobs; files of metadata come first.
_MOST_FILES = 100


def positions_of(
    acquisition: Acquisition | None, stage_positions: Path | None, overrule: bool = False
) -> np.ndarray:
    """Return the stage positions of an acquisition: those of the CSV, or else of the file.

    Parameters
    ----------
    acquisition : Acquisition or None
        None where it is not readable; the CSV then is not compared with it.
    stage_positions : path or None
        The stage CSV.
    overrule : bool
        Whether the CSV counts where the file states other positions.

    Returns
    -------
    numpy.ndarray, shape (P,)
        Micrometres, in the order of the projections.

    Raises
    ------
    InputError
        Neither states them, the CSV is wrong, or both state different ones. A common shift is no
        difference: each may count from another point.
    """
    if stage_positions is None:
        return _positions_of_file(acquisition)
    listed = read_stage_positions(stage_positions)
    if acquisition is None:
        return listed
    count = acquisition.data.shape[2]
    if len(listed) != count:
        raise InputError(
            f"{stage_positions}: it lists {len(listed)} positions, but the acquisition has "
            f"{count} projections; list every projection of the stack once"
        )
    stated = acquisition.positions_um
    if stated is None or overrule or count < 2:
        return listed
    step = float(np.median(np.abs(np.diff(np.sort(stated)))))
    away = _distance(listed, stated)
    if away > TOLERANCE * step:
        turned = " (they run in opposite directions)" if _distance(-listed, stated) < away else ""
        source = acquisition.sources.get("stage positions", "its metadata")
        raise InputError(
            f"{stage_positions}: it says {_list(listed)} um, but by {source}, {acquisition.path} "
            f"was recorded at {_list(stated)} um{turned}; correct the CSV, leave the cell empty, "
            f"or write yes into the column overrule"
        )
    return listed


def _positions_of_file(acquisition: Acquisition | None) -> np.ndarray:
    if acquisition is not None and acquisition.positions_um is not None:
        return acquisition.positions_um
    reason = acquisition.unknown.get("stage positions") if acquisition is not None else None
    raise InputError(
        f"the stage positions are not known from the file{f' ({reason})' if reason else ''}; "
        f"write a CSV with the columns projection,z_um and give its path"
    )


def _distance(listed: np.ndarray, stated: np.ndarray) -> float:
    """Return the largest difference that remains after the best common shift."""
    difference = listed - stated
    return float(np.ptp(difference)) / 2


def _list(positions: np.ndarray) -> str:
    more = ", ..." if len(positions) > _SOME else ""
    return ", ".join(f"{z:g}" for z in positions[:_SOME]) + more


def voxel_size_of(
    sample: Sample, acquisition: Acquisition | None, truth: Acquisition | None
) -> tuple[float | None, float | None, float | None]:
    """Return the voxel size of the output: that of the sheet, or else of the files.

    Parameters
    ----------
    sample : Sample
    acquisition, truth : Acquisition or None
        Where they are there and readable. The distance of the planes of an acquisition is the step
        of the stage, and so no voxel size.

    Returns
    -------
    tuple of (float or None)
        (z, y, x) in micrometres; None where none of them states it.
    """
    sizes = []
    for axis in range(3):
        stacks = (truth,) if axis == 0 else (acquisition, truth)
        stated = [stack.voxel_size_um[axis] for stack in stacks if stack is not None]
        known = [sample.voxel_size_um[axis], *stated]
        sizes.append(next((size for size in known if size is not None), None))
    return tuple(sizes)


def resolve(
    sample: Sample, acquisition: Acquisition | None = None, truth: Acquisition | None = None
) -> Sample:
    """Return a sample with the stage positions and the voxel size that hold for it.

    Parameters
    ----------
    sample : Sample
    acquisition, truth : Acquisition, optional
        Opened where something is needed from them and they are not given.

    Raises
    ------
    InputError
        Something is not known, or sheet and files disagree about positions.
    """
    z, y, x = sample.voxel_size_um
    tested = sample.role == "test"
    if tested and acquisition is None and (sample.stage_positions is None or None in (y, x)):
        acquisition = open_acquisition(sample.acquisition, sample.frames)
    if truth is None and sample.ground_truth is not None and None in (z, y, x):
        truth = open_acquisition(sample.ground_truth)
    voxel = voxel_size_of(sample, acquisition, truth)
    for column, size in zip(VOXEL_COLUMNS[1:], voxel[1:], strict=True):
        if size is None:
            raise InputError(f'sample "{sample.name}": {column} is not known; write it')
    files = truth.files[:_MOST_FILES] if truth is not None else ()
    beside = tuple(file for file in files if file != sample.ground_truth)
    sample = replace(sample, ground_truth_files=beside)
    if not tested:
        return replace(sample, voxel_size_um=voxel)
    files = acquisition.files if acquisition is not None else ()
    return replace(
        sample,
        voxel_size_um=voxel,
        positions_um=tuple(
            positions_of(acquisition, sample.stage_positions, sample.overrule).tolist()
        ),
        acquisition_files=files[:_MOST_FILES],
    )

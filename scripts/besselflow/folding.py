"""Joins the logs and the measured times of a finished sample: two files instead of dozens.

File systems of clusters count files. What Snakemake writes of each job is kept apart until a sample
is finished, so that the log of a failure is found under its name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from besselflow.store import atomic_path, write_tsv

if TYPE_CHECKING:
    import pandas as pd

LOGS, BENCHMARKS = "logs.txt", "benchmarks.tsv"
_HEADING = re.compile(r"^==> (.+) <==$", re.MULTILINE)


def fold_sample(folder: Path | str) -> None:
    """Join the logs of a sample in ``logs.txt`` and its benchmarks in ``benchmarks.tsv``.

    What was joined before stays, unless its job has run again.

    Parameters
    ----------
    folder : path
        Results of a sample, none of whose jobs is running.
    """
    folder = Path(folder)
    texts = {
        _name(path, folder): path.read_text(encoding="utf-8", errors="replace")
        for path in _files(folder, "logs")
    }
    if texts:
        texts = _read_logs(folder / LOGS) | texts
        with atomic_path(folder / LOGS) as temporary:
            parts = (f"==> {name} <==\n{text.rstrip()}\n\n" for name, text in texts.items())
            temporary.write_text("".join(parts), encoding="utf-8")
    if measured := _files(folder, "benchmarks"):
        _join_benchmarks(folder, measured)
    for kind in ("logs", "benchmarks"):
        for path in _files(folder, kind):
            path.unlink()
        for place in (folder / kind, folder / "held_out" / kind):
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()


def _join_benchmarks(folder: Path, measured: list[Path]) -> None:
    # A run that starts, or that has nothing to do, need not wait for pandas.
    import pandas as pd

    rows = pd.concat(
        pd.read_csv(path, sep="\t", dtype=str).assign(job=_name(path, folder)) for path in measured
    )
    if (folder / BENCHMARKS).is_file():
        old = pd.read_csv(folder / BENCHMARKS, sep="\t", dtype=str)
        rows = pd.concat([old[~old["job"].isin(rows["job"])], rows])
    write_tsv(folder / BENCHMARKS, rows[["job", *rows.columns.drop("job")]])


def read_benchmark(path: Path | str) -> pd.DataFrame | None:
    """Read what Snakemake measured of a job, wherever it lies by now; None if nowhere.

    Parameters
    ----------
    path : path
        Where the job wrote it, in ``benchmarks`` of the sample or of its part ``held_out``.
    """
    import pandas as pd

    path = Path(path)
    if path.is_file():
        return pd.read_csv(path, sep="\t")
    folder = _folder_of(path, BENCHMARKS)
    if folder is None:
        return None
    rows = pd.read_csv(folder / BENCHMARKS, sep="\t")
    rows = rows[rows["job"] == _name(path, folder)]
    return None if rows.empty else rows.drop(columns="job")


def read_log(path: Path | str) -> str:
    """Read the log of a job, wherever it lies by now; empty if nowhere.

    Parameters
    ----------
    path : path
        Where the job wrote it, in ``logs`` of the sample or of its part ``held_out``.
    """
    path = Path(path)
    if path.is_file():
        return path.read_text(encoding="utf-8", errors="replace")
    folder = _folder_of(path, LOGS)
    return "" if folder is None else _read_logs(folder / LOGS).get(_name(path, folder), "")


def folded_seconds(folder: Path, without: set[str]) -> list[float]:
    """Return the seconds of all jobs of a sample whose times were joined, but for some stages."""
    if not (folder / BENCHMARKS).is_file():
        return []
    import pandas as pd

    rows = pd.read_csv(folder / BENCHMARKS, sep="\t", usecols=["job", "s"])
    stages = rows["job"].map(lambda job: Path(job).name)
    return rows["s"][~stages.isin(without)].dropna().tolist()


def _folder_of(path: Path, joined: str) -> Path | None:
    """Return the folder of the sample whose joined file would hold what a job wrote."""
    return next((folder for folder in path.parents[1:3] if (folder / joined).is_file()), None)


def _files(folder: Path, kind: str) -> list[Path]:
    places = (folder / kind, folder / "held_out" / kind)
    return sorted(path for place in places for path in place.glob("*") if path.is_file())


def _name(path: Path, folder: Path) -> str:
    """Return ``stage-shard`` or ``held_out/stage-shard``."""
    return (path.parent.parent / path.stem).relative_to(folder).as_posix()


def _read_logs(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    _, *parts = _HEADING.split(path.read_text(encoding="utf-8"))
    return {name: text.strip() for name, text in zip(parts[::2], parts[1::2], strict=True)}

"""On one machine, as many jobs run side by side as its memory holds."""

import itertools
import re
import subprocess

import pytest

from tiny_runs import TinyFacility, environment

pytestmark = pytest.mark.workflow
# Python runs it before anything else, here in place of a machine that has so much.
MACHINE = "from besselflow import hardware; hardware.memory_bytes = lambda: {bytes}"
TARGETS = ("results/a/projections.zip", "results/b/projections.zip")


@pytest.fixture(scope="module")
def facility(tmp_path_factory):
    facility = TinyFacility(tmp_path_factory.mktemp("memory"))
    for seed, name in enumerate("ab"):
        facility.add_test(name, seed=seed)
    return facility


@pytest.mark.parametrize(
    ("gigabytes", "more", "at_once"),
    [
        (8, [], 2),
        # Not even for one, which runs all the same; and for what the user says.
        (0.5, [], 1),
        (0.5, ["--resources", "mem_mb=8000"], 2),
    ],
)
def test_jobs_run_side_by_side_where_memory_holds_them(
    facility, tmp_path, gigabytes, more, at_once
):
    code = MACHINE.format(bytes=int(gigabytes * 1e9))
    (tmp_path / "sitecustomize.py").write_text(code, encoding="utf-8")
    inherited = environment()
    paths = [str(tmp_path), *filter(None, [inherited.get("PYTHONPATH")])]
    done = subprocess.run(
        facility.command("--forcerun", "preprocess", *more, "--", *TARGETS),
        cwd=facility.folder,
        env=inherited | {"PYTHONPATH": ":".join(paths)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    events = re.findall(r"^(Job|Finished jobid)[ :]*\d", done.stderr, re.MULTILINE)
    steps = [1 if event == "Job" else -1 for event in events]
    assert len(steps) == 4 and sum(steps) == 0
    assert max(itertools.accumulate(steps)) == at_once

"""Checks the summary of a failed run, from recorded logs and from a run that really fails."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from besselflow.failures import Failure, read_failures, summarise

# As Snakemake 9.27 writes it.
WORKFLOW_LOG = """\
Building DAG of jobs...
Using shell: /usr/bin/bash
Provided cores: 2
Job stats:
job            count
-----------  -------
fit_inr            3
train_prior        1
all                1
total              5

Select jobs to execute...
Execute 2 jobs...
[Sat Nov 21 23:10:35 2026]
Job 1: a: fitting
Reason: Missing output files: results/a/out.txt
[Sat Nov 21 23:10:35 2026]
localrule train_prior:
    output: results/priors/abc.txt
    log: results/priors/logs/train_prior-abc.log
    jobid: 4
    reason: Missing output files: results/priors/abc.txt
    resources: tmpdir=/tmp
RuleException:
CalledProcessError in file "/work/Snakefile", line 24:
Command 'set -euo pipefail;  kill -9 $$' died with <Signals.SIGKILL: 9>.
[Sat Nov 21 23:10:36 2026]
Error in rule train_prior:
    message: None
    jobid: 4
    output: results/priors/abc.txt
    log: results/priors/logs/train_prior-abc.log (check log file(s) for error details)
    shell:
        kill -9 $$
        (command exited with non-zero exit code)
Select jobs to execute...
Execute 1 jobs...
[Sat Nov 21 23:10:36 2026]
Job 2: b: fitting
Reason: Missing output files: results/b/out.txt
RuleException:
CalledProcessError in file "/work/Snakefile", line 15:
Command 'set -euo pipefail;  python3.11 tmpn191g5k2.fail.py' returned non-zero exit status 1.
[Sat Nov 21 23:10:36 2026]
Error in rule fit_inr:
    message: None
    jobid: 1
    output: results/a/out.txt
    log: results/a/logs/fit_inr-0.log (check log file(s) for error details)
Select jobs to execute...
RuleException:
CalledProcessError in file "/work/Snakefile", line 15:
Command 'set -euo pipefail;  python3.11 tmpj2yis552.fail.py' died with <Signals.SIGKILL: 9>.
[Sat Nov 21 23:10:36 2026]
Error in rule fit_inr:
    message: None
    jobid: 2
    output: results/b/out.txt
    log: results/b/logs/fit_inr-0.log (check log file(s) for error details)
Execute 1 jobs...
Exiting because a job execution failed. Look above for error messages
WorkflowError:
At least one job did not complete successfully.
"""
EXCLUDED = """\
[Sat Nov 21 23:10:36 2026]
Error in rule exclude_samples:
    message: None
    jobid: 9
    output: results/.excluded-samples
    log: results/logs/exclude_samples.log (check log file(s) for error details)
    shell:
        printf 'x'; exit 1
        (command exited with non-zero exit code)
"""
TRACEBACK = """\
2026-11-21 23:10:35,113 INFO fit 10 % (300/3000), misfit 1.3, 54 s left
Traceback (most recent call last):
  File "/work/scripts/besselflow/job.py", line 46, in job_log
    yield
  File "/work/scripts/fit_inr.py", line 9, in main
    raise InputError("a.tif holds pixels that are not finite")
        ^^^^^
{message}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_log(path, text):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def read(text=WORKFLOW_LOG):
    write_log("snakemake.log", text)
    return read_failures(["snakemake.log"], "results")


def test_each_failed_job_is_found_with_sample_stage_and_log(folder):
    failures = read()
    assert [(f.sample, f.stage, f.log) for f in failures] == [
        (None, "train_prior", "results/priors/logs/train_prior-abc.log"),
        ("a", "fit_inr", "results/a/logs/fit_inr-0.log"),
        ("b", "fit_inr", "results/b/logs/fit_inr-0.log"),
    ]


def test_job_of_the_cohort_has_no_sample(folder):
    (failure,) = read(
        "Error in rule report_cohort:\n    jobid: 3\n    output: results/report.html\n"
        "    log: results/logs/report_cohort.log (check log file(s) for error details)\n"
    )
    assert (failure.sample, failure.stage) == (None, "report_cohort")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("besselflow.errors.InputError: a.tif: not finite; export again", "a.tif: not finite; exp"),
        ("RuntimeError: the fit diverged at step 3", "RuntimeError: the fit diverged at step 3"),
        ("MemoryError", "MemoryError"),
        ("RuntimeError: p.pt: no prior\n\tsize mismatch for w\n", "RuntimeError: p.pt: no prior"),
        (
            "KeyError: 'x'\n\nDuring handling of the above exception, another exception occurred:\n"
            "\nTraceback (most recent call last):\n  File 'y', line 3, in z\nValueError: no x",
            "ValueError: no x",
        ),
    ],
    ids=["input", "runtime", "bare", "several lines", "chained"],
)
def test_reason_is_the_message_of_the_exception(folder, message, reason):
    write_log("results/a/logs/fit_inr-0.log", TRACEBACK.format(message=message))
    failure = read()[1]
    assert failure.reason.startswith(reason)
    assert "\n" not in failure.reason


@pytest.mark.parametrize("text", [None, "", "2026-11-21 23:10:35,113 INFO fit 10 %\n"])
def test_job_that_was_killed_without_a_word(folder, text):
    if text is not None:
        write_log("results/b/logs/fit_inr-0.log", text)
    assert "killed for its memory or time" in read()[2].reason


def test_excluded_samples_are_no_failed_job(folder):
    assert read(EXCLUDED) == []
    assert len(read(WORKFLOW_LOG + EXCLUDED)) == 3


def test_successful_run_has_no_failures(folder):
    assert read("Building DAG of jobs...\n5 of 5 steps (100%) done\n") == []


def test_job_that_failed_twice_is_listed_once(folder):
    assert len(read(WORKFLOW_LOG + WORKFLOW_LOG)) == 3


def test_summary_tells_sample_stage_reason_log_and_command():
    text = summarise(
        [
            Failure("a", "fit_inr", "the fit diverged", "results/a/logs/fit_inr-0.log"),
            Failure(None, "train_prior", "MemoryError", None),
        ],
        {"c": ["samples.tsv:4: no such file; correct the path", "samples.tsv:4: no unit; add it"]},
        "results",
        "snakemake --profile profiles/default",
    )
    assert text.splitlines() == [
        "",
        "BesselFlow could not finish everything.",
        "  sample: a",
        "    stage:  fit_inr",
        "    reason: the fit diverged",
        "    log:    results/a/logs/fit_inr-0.log",
        "  sample: (all)",
        "    stage:  train_prior",
        "    reason: MemoryError",
        "    log:    none",
        "  sample: c",
        "    stage:  check of the input",
        "    reason: samples.tsv:4: no such file; correct the path",
        "    reason: samples.tsv:4: no unit; add it",
        "What did finish is in results/report.html.",
        "After the repair, go on with: snakemake --profile profiles/default",
    ]


def test_text_is_said_after_all_else():
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('library', file=sys.stderr))\n"
        "from besselflow.failures import say_last\n"
        "say_last('the summary')\n"
        "print('more output', file=sys.stderr)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    # Exit handlers run in reverse order, so that only those registered before come later.
    assert ended.stderr.splitlines()[:2] == ["more output", "the summary"]


SNAKEFILE = """
from besselflow import failures

rule all:
    input: expand("results/{s}/out.txt", s=["a", "b", "c", "d"])

rule fit_inr:
    output: "results/{s}/out.txt"
    log: "results/{s}/logs/fit_inr-0.log"
    message: "{wildcards.s}: fitting"
    script: "fail.py"

onerror:
    found = failures.read_failures(list(log) if not isinstance(log, str) else [log], "results")
    failures.say_last(failures.summarise(found, {}, "results", "snakemake"))
"""
SCRIPT = """
import os, signal
from pathlib import Path
from besselflow.errors import InputError
from besselflow.job import run_script

def main(sample, out):
    if sample == "a":
        raise InputError("a.tif holds pixels that are not finite; export it again")
    if sample == "b":
        os.kill(os.getpid(), signal.SIGKILL)
    if sample == "c":
        raise RuntimeError("the fit diverged at step 3")
    Path(out).write_text("done")

run_script(snakemake, main, sample=snakemake.wildcards.s, out=snakemake.output[0])
"""


@pytest.mark.workflow
def test_summary_of_a_run_that_really_fails(folder):
    write_log("Snakefile", SNAKEFILE)
    write_log("fail.py", SCRIPT)
    snakemake = Path(sys.executable).with_name("snakemake")
    if not snakemake.exists():
        snakemake = shutil.which("snakemake")
    ended = subprocess.run(
        [snakemake, "--cores", "1", "--keep-going", "--nocolor"], capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert Path("results/d/out.txt").exists()
    (log,) = Path(".snakemake/log").iterdir()
    found = {failure.sample: failure for failure in read_failures([str(log)], "results")}
    assert set(found) == {"a", "b", "c"}
    assert found["a"].reason == "a.tif holds pixels that are not finite; export it again"
    assert "killed" in found["b"].reason
    assert found["c"].reason == "RuntimeError: the fit diverged at step 3"
    for sample, failure in found.items():
        assert failure.log == f"results/{sample}/logs/fit_inr-0.log"
        assert failure.stage == "fit_inr"
    assert ended.stderr.rstrip().endswith("After the repair, go on with: snakemake")
    for failure in found.values():
        assert f"    reason: {failure.reason}" in ended.stderr


def test_a_job_that_succeeded_when_tried_again_is_no_failure(tmp_path):
    again = WORKFLOW_LOG + "[Sat Nov 21 23:11:00 2026]\nFinished jobid: 1 (Rule: fit_inr)\n"
    path = tmp_path / "run.log"
    path.write_text(WORKFLOW_LOG)
    before = read_failures([str(path)], "results")
    path.write_text(again)
    after = read_failures([str(path)], "results")
    assert [f for f in before if f not in after] == [f for f in before if f.sample == "a"]
    assert len(after) == len(before) - 1

"""Checks the summary of a failed run, from recorded logs and from a run that really fails."""

import logging
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from besselflow.failures import Failure, JobWatch, attempt, summarise, without_forcing
from besselflow.store import write_json
from tiny_faults import fill_disk, small_disk

TRACEBACK = """\
2026-11-21 23:10:35,113 INFO fit 10 % (300/3000), misfit 1.3, 54 s left
Traceback (most recent call last):
  File "/repo/scripts/besselflow/job.py", line 46, in job_log
    yield
  File "/repo/scripts/fit_inr.py", line 9, in main
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


def failed(watch, job, rule, *logs):
    event = SimpleNamespace(name="JOB_ERROR")
    fields = {"event": event, "jobid": job, "rule_name": rule, "log": list(logs)}
    watch.handle(logging.makeLogRecord(fields))


def finished(watch, job):
    event = SimpleNamespace(name="JOB_FINISHED")
    watch.handle(logging.makeLogRecord({"event": event, "job_id": job}))


@pytest.fixture
def watch():
    watch = JobWatch()
    watch.handle(logging.makeLogRecord({"msg": "a line without an event"}))
    failed(watch, 4, "train_prior", "results/priors/logs/train_prior-abc.log")
    failed(watch, 1, "fit_inr", "results/a, b/logs/fit_inr-0.log", "slurm.log")
    failed(watch, 2, "fit_inr", "results/b/logs/fit_inr-0.log")
    return watch


def test_each_failed_job_is_found_with_sample_stage_and_log(folder, watch):
    assert [(f.sample, f.stage, f.log) for f in watch.failures("results")] == [
        (None, "train_prior", "results/priors/logs/train_prior-abc.log"),
        ("a, b", "fit_inr", "results/a, b/logs/fit_inr-0.log"),
        ("b", "fit_inr", "results/b/logs/fit_inr-0.log"),
    ]


def member(job, rule, inputs, outputs):
    log = f"results/a/logs/{rule}.log"
    return {"jobid": job, "rule_name": rule, "input": inputs, "output": outputs, "log": [log]}


def group_failed(watch, *members):
    """Log what the engine logs of a failed group: the whole, and then every member."""
    event = SimpleNamespace(name="GROUP_ERROR")
    watch.handle(logging.makeLogRecord({"event": event, "job_error_info": list(members)}))
    for one in members:
        failed(watch, one["jobid"], one["rule_name"], *one["log"])


CHAIN = (
    member(1, "assemble", [], ["volume"]),
    member(2, "validate", ["volume"], ["chi2"]),
    member(3, "evaluate", ["chi2"], ["scores"]),
)


def test_of_a_failed_group_only_the_job_that_failed_is_blamed(folder):
    Path("volume").mkdir()
    write_log("results/a/logs/validate.log", TRACEBACK.format(message="ValueError: no noise"))
    watch = JobWatch()
    group_failed(watch, *CHAIN)
    assert [(f.stage, f.reason) for f in watch.failures("results")] == [
        ("validate", "ValueError: no noise")
    ]


def test_of_a_killed_group_the_job_that_was_at_work_is_blamed(folder):
    Path("volume").mkdir()
    watch = JobWatch()
    group_failed(watch, *CHAIN)
    (failure,) = watch.failures("results")
    assert failure.stage == "validate" and "killed for its memory or time" in failure.reason


def test_a_group_is_judged_again_when_it_is_repeated(folder):
    watch = JobWatch()
    group_failed(watch, *CHAIN)
    assert [f.stage for f in watch.failures("results")] == ["assemble"]
    for name in ("volume", "chi2"):
        Path(name).mkdir()
    group_failed(watch, *CHAIN)
    assert [f.stage for f in watch.failures("results")] == ["evaluate"]
    for one in CHAIN:
        finished(watch, one["jobid"])
    assert watch.failures("results") == []


class Cluster:
    """An executor that says of jobs why they failed, as the engine has it log that."""

    def __init__(self, watch):
        self.watch = watch
        watch.listen_to(self)

    def says(self, text, *members, logs=()):
        jobs = [SimpleNamespace(jobid=one["jobid"], is_group=lambda: False) for one in members]
        group = SimpleNamespace(jobs=jobs, is_group=lambda: True)
        self.members = members
        job = jobs[0] if len(jobs) == 1 else group
        self.print_job_error(SimpleNamespace(job=job), text, aux_logs=list(logs))

    def print_job_error(self, job_info, msg=None, aux_logs=None):
        if job_info.job.is_group():
            group_failed(self.watch, *self.members)
        else:
            (one,) = self.members
            failed(self.watch, one["jobid"], one["rule_name"], *one["log"])


@pytest.mark.parametrize("members", [CHAIN[:1], CHAIN], ids=["job", "group"])
def test_what_slurm_says_of_a_job_that_it_refuses_is_the_reason(folder, members):
    # The log is that of an earlier attempt.
    write_log("results/a/logs/assemble.log", TRACEBACK.format(message="ValueError: old"))
    said = (
        "SLURM sbatch failed. The error message was 'sbatch: error: invalid partition: nowhere\n"
        "sbatch: error: Batch job submission failed: Invalid partition name (of this user's)'.\n"
        "    sbatch call:\n        sbatch --job-name 'x'\n"
    )
    watch = JobWatch()
    Cluster(watch).says(said, *members)
    (failure,) = watch.failures("results")
    assert failure.stage == "assemble" and failure.reason == (
        "Slurm refused the job: invalid partition: nowhere; "
        "Batch job submission failed: Invalid partition name (of this user's)"
    )


TIME = "its time; give it more with --set-resources validate:runtime=MINUTES"
MEMORY = "its memory; give it more with --set-resources validate:mem_mb=MEGABYTES"


@pytest.mark.parametrize("members", [CHAIN[1:2], CHAIN], ids=["job", "group"])
@pytest.mark.parametrize(
    ("state", "line", "reason"),
    [
        ("TIMEOUT", "", f"Slurm ended the job, which had used up {TIME}"),
        ("OUT_OF_MEMORY", "", f"Slurm ended the job, which had used up {MEMORY}"),
        # A step was killed, and not the job.
        (
            "FAILED",
            "slurmstepd-n1: error: Detected 1 oom_kill event in StepId=7.0. Some of the step tasks "
            "have been OOM Killed.",
            f"Slurm ended the job, which had used up {MEMORY}",
        ),
        (
            "FAILED",
            "slurmstepd-n1: error: StepId=7.0 exceeded memory limit (361 > 209), being killed",
            f"Slurm ended the job, which had used up {MEMORY}",
        ),
        (
            "FAILED",
            "slurmstepd-n1: error: *** STEP 7.0 ON n1 CANCELLED AT 9:00 DUE TO TIME LIMIT ***",
            f"Slurm ended the job, which had used up {TIME}",
        ),
        # That of a GPU, which was got over.
        (
            "FAILED",
            "[a 0 refine] the GPU is out of memory; going on with batches of 2",
            "the job ended without a message, and its state in Slurm is FAILED",
        ),
        ("FAILED", "", "the job ended without a message, and its state in Slurm is FAILED"),
        ("CANCELLED", "", "the job ended without a message, and its state in Slurm is CANCELLED"),
    ],
)
def test_how_slurm_ended_a_job_is_the_reason_where_its_log_tells_none(
    folder, members, state, line, reason
):
    Path("volume").mkdir()
    # What lies far before the end is of no interest.
    write_log("7.log", f"oom-kill{'.' * 20_000}\n{line}\nExiting.\n")
    watch = JobWatch()
    cluster = Cluster(watch)
    said = f"SLURM-job '7' failed, SLURM status is: '{state}'. Reason: Unknown."
    cluster.says(said, *members, logs=["7.log"])
    expected = f"{reason}; Slurm's log of it is 7.log"
    assert [f.reason for f in watch.failures("results")] == [expected]
    # Nothing of it is left when the job is tried again and ends otherwise.
    cluster.says("", *members)
    (failure,) = watch.failures("results")
    assert "killed for its memory or time" in failure.reason
    write_log("results/a/logs/validate.log", TRACEBACK.format(message="ValueError: no noise"))
    cluster.says(said, *members, logs=["7.log"])
    assert [f.reason for f in watch.failures("results")] == ["ValueError: no noise"]


def test_a_log_of_slurm_that_is_not_there_changes_nothing_of_what_it_says(folder):
    watch = JobWatch()
    said = "SLURM-job '7' failed, SLURM status is: 'TIMEOUT'."
    Cluster(watch).says(said, CHAIN[0], logs=["away.log", None])
    (failure,) = watch.failures("results")
    assert failure.reason.endswith("assemble:runtime=MINUTES; Slurm's log of it is away.log")


def test_job_of_the_cohort_has_no_sample(folder):
    watch = JobWatch()
    failed(watch, 3, "report_cohort", "results/logs/report_cohort.log")
    (failure,) = watch.failures("results")
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
def test_reason_is_the_message_of_the_exception(folder, watch, message, reason):
    write_log("results/a, b/logs/fit_inr-0.log", TRACEBACK.format(message=message))
    failure = watch.failures("results")[1]
    assert failure.reason.startswith(reason)
    assert "\n" not in failure.reason


@pytest.mark.parametrize("text", [None, "", "2026-11-21 23:10:35,113 INFO fit 10 %\n"])
def test_job_that_was_killed_without_a_word(folder, watch, text):
    if text is not None:
        write_log("results/b/logs/fit_inr-0.log", text)
    assert "killed for its memory or time" in watch.failures("results")[2].reason


def test_excluded_samples_are_no_failed_job():
    watch = JobWatch()
    failed(watch, 9, "exclude_samples", "results/logs/exclude_samples.log")
    assert watch.failures("results") == []


def test_job_that_failed_twice_is_listed_once(watch):
    failed(watch, 2, "fit_inr", "results/b/logs/fit_inr-0.log")
    assert len(watch.failures("results")) == 3


def test_a_job_that_succeeded_when_tried_again_is_no_failure(watch):
    finished(watch, 2)
    finished(watch, 77)
    assert [f.sample for f in watch.failures("results")] == [None, "a, b"]


def test_a_log_that_could_not_be_written_names_the_disk(folder):
    results, log = folder / "results", "results/logs/preflight.log"
    with small_disk(results, "64k"):
        filler, watch = fill_disk(results), JobWatch()
        failed(watch, 1, "preflight", log)
        (full,) = watch.failures("results")
        filler.unlink()
        (roomy,) = watch.failures("results")
    assert full.reason.startswith(
        f"the job ended without a message, and {log} can't be written: the disk is full; free some"
    )
    assert "killed for its memory or time" in roomy.reason


@pytest.mark.parametrize("said", ["", "SLURM-job '7' failed, SLURM status is: 'FAILED'."])
def test_a_silent_job_beside_one_that_found_the_disk_full_is_not_called_killed(folder, watch, said):
    log = "results/b/logs/fit_inr-0.log"
    Cluster(watch).says(said, {"jobid": 2, "rule_name": "fit_inr", "log": [log]})
    full = "results/a/units/u.zip can't be written: the disk is full; free some space"
    message = f"besselflow.errors.InputError: {full}"
    write_log("results/a, b/logs/fit_inr-0.log", TRACEBACK.format(message=message))
    reasons = {each.sample: each.reason for each in watch.failures("results")}
    assert reasons["a, b"] == full
    silent = "the job ended without a message, and elsewhere in this run it was found that the disk"
    assert reasons["b"].startswith(silent) and reasons["b"].endswith("run the same command again")


def test_a_silent_job_beside_a_page_that_did_not_fit_is_not_called_killed(folder, watch):
    refusal = "results/report.html can't be written: the disk is full; free some space"
    found = watch.failures("results")
    assert "killed for its memory" in summarise(found, {}, "results", "snakemake")
    summary = summarise(found, {}, "results", "snakemake", refusal)
    assert "killed for its memory" not in summary
    assert summary.count("and elsewhere in this run it was found that the disk is full; ") == 3


def test_what_could_not_be_written_is_said_in_a_sentence(folder):
    with small_disk(folder / "results", "64k"):
        fill_disk(folder / "results")
        refusal = attempt(lambda: write_json("results/a.json", {"a": "b"}))
    assert refusal.startswith("results/a.json can't be written: the disk is full; free some space")
    assert attempt(lambda: write_json("a.json", {})) is None


def test_summary_names_no_page_that_is_not_there(folder):
    def last_lines(unwritten=None):
        return summarise([], {}, "results", "snakemake", unwritten).splitlines()[2:-1]

    refusal = "results/metrics.tsv can't be written: the disk is full; free some space"
    inside = "What did finish is in results."
    assert last_lines() == [inside]
    assert last_lines(refusal) == [f"There is no results/report.html: {refusal}.", inside]
    write_log("results/report.html", "a page")
    assert last_lines() == ["What did finish is in results/report.html."]
    earlier = "results/report.html is that of an earlier run"
    assert last_lines(refusal) == [f"{earlier}: {refusal}.", inside]


def test_summary_tells_sample_stage_reason_log_and_command(folder):
    write_log("results/report.html", "a page")
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


def test_what_is_finished_is_not_forced_again():
    asked = ["--cores", "2", "-F", "--forcerun", "estimate_shading", "assemble", "--config", "a=b"]
    assert without_forcing(asked) == ["--cores", "2", "--config", "a=b"]
    assert without_forcing(["report.html", "-R", "evaluate"]) == ["report.html"]


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
from snakemake.logging import logger
from besselflow import failures

watch = failures.JobWatch()
logger.addHandler(watch)

rule all:
    input: expand("results/{s}/out.txt", s=["a", "b", "c", "d"])

rule fit_inr:
    output: "results/{s}/out.txt"
    log: "results/{s}/logs/fit_inr-0.log"
    message: "{wildcards.s}: fitting"
    script: "fail.py"

onerror:
    found = watch.failures("results")
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
        [snakemake, "--cores", "1", "--keep-going", "--quiet", "all"],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    assert Path("results/d/out.txt").exists()
    reasons = {
        "a": "a.tif holds pixels that are not finite; export it again",
        "b": "the job ended without a message, as when it is killed",
        "c": "RuntimeError: the fit diverged at step 3",
    }
    for sample, reason in reasons.items():
        start = f"  sample: {sample}\n    stage:  fit_inr\n    reason: {reason}"
        assert start in ended.stderr
        assert f"    log:    results/{sample}/logs/fit_inr-0.log" in ended.stderr
    assert "sample: d" not in ended.stderr
    assert ended.stderr.rstrip().endswith("After the repair, go on with: snakemake")

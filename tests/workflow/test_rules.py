"""What all rules have in common, the lints, and the environments that the rules name."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tiny_runs import ROOT

WORKFLOW = ROOT / "workflow"
ENVS = ROOT / "envs"
CONDA_TO_PIP = {"pytorch": "torch", "matplotlib-base": "matplotlib"}


def read_rules():
    """Return rule -> directive -> its text, from the Snakefiles."""
    rules = {}
    for path in [WORKFLOW / "Snakefile", *sorted(WORKFLOW.glob("rules/*.smk"))]:
        text = path.read_text(encoding="utf-8")
        for found in re.finditer(r"^rule (\w+):\n((?:    .*\n|\n)+)", text, re.MULTILINE):
            parts = re.split(r"^    (\w+):", found[2], flags=re.MULTILINE)[1:]
            rules[found[1]] = dict(zip(parts[::2], parts[1::2], strict=True))
    return rules


RULES = read_rules()
WORKING_RULES = sorted(set(RULES) - {"all"})


def test_all_rules_were_found():
    assert len(WORKING_RULES) == 23


@pytest.mark.parametrize("rule", WORKING_RULES)
def test_rule_is_complete(rule):
    blocks = RULES[rule]
    assert {"output", "log", "benchmark", "conda", "threads", "resources", "message"} <= set(blocks)
    assert "mem_mb=" in blocks["resources"] and "runtime=" in blocks["resources"]
    environment = blocks["conda"].strip().strip('"')
    assert (WORKFLOW / "rules" / environment).resolve() == ENVS / "environment.yaml"


@pytest.mark.parametrize("rule", WORKING_RULES)
def test_log_and_benchmark_of_a_job_are_its_own(rule):
    blocks = RULES[rule]
    wildcards = set(re.findall(r"\{\{(\w+)\}\}", blocks["output"]))
    for name in ("log", "benchmark"):
        used = set(re.findall(r"\{\{(\w+)\}\}", blocks[name]))
        assert wildcards <= used and rule in blocks[name]


LOCAL = {"exclude_samples", "run_configuration", "ablation", "report_cohort", "preflight"}
GPU = {"fit_inr", "train_prior", "refine", "train_microdiffusion", "sample_microdiffusion"}


@pytest.mark.parametrize("rule", sorted(set(WORKING_RULES) - LOCAL))
def test_resources_of_a_submitted_job_are_estimated_and_belong_to_no_site(rule):
    asked = dict(re.findall(r"(\w+)=(.*),", RULES[rule]["resources"]))
    estimates = {"mem_mb": f'memory_mb("{rule}")', "runtime": f'minutes("{rule}")'}
    # Stages that share the job of a small sample share its one lane.
    lanes = {"lane": "lane"} if "group" in RULES[rule] else {}
    assert asked == estimates | lanes | ({"gpu": "GPUS"} if rule in GPU else {})


def test_another_sample_in_the_sheet_repeats_no_estimate_that_all_samples_share():
    assert not {"input", "params"} & set(RULES["estimate_shading"])


def test_rules_that_may_hold_a_gpu_share_their_job_with_others_of_a_tiny_sample_only():
    # Of which none asks for a GPU: see `is_one_job`.
    groups = {rule: RULES[rule]["group"].strip() for rule in GPU if "group" in RULES[rule]}
    assert set(groups.values()) == {"in_group(None)"}


def test_local_rules_are_those_of_no_sample():
    text = (WORKFLOW / "Snakefile").read_text(encoding="utf-8")
    named = re.search(r"^localrules:\n((?:    \w+,\n)+)", text, re.MULTILINE)
    assert set(re.findall(r"\w+", named[1])) == LOCAL | {"all"}


@pytest.mark.parametrize("rule", sorted(set(WORKING_RULES) - {"exclude_samples"}))
def test_script_has_the_name_of_its_rule(rule):
    script = RULES[rule]["script"].strip().strip('"')
    assert script == f"../../scripts/{rule}.py"
    assert (WORKFLOW / "rules" / script).is_file()


@pytest.mark.workflow
def test_snakemake_lint_finds_nothing(small):
    lint = small.run("--lint")
    assert lint.returncode == 0, lint.stdout
    assert "your workflow is in a good condition" in lint.stdout


def test_snakefmt_finds_nothing():
    beside = Path(sys.executable).with_name("snakefmt")
    snakefmt = beside if beside.exists() else shutil.which("snakefmt")
    assert snakefmt, "snakefmt is missing: pip install -r envs/requirements-test.txt"
    done = subprocess.run(
        [snakefmt, "--check", str(WORKFLOW)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def pins(lines):
    """Return package -> version, named as PyPI compares names."""
    pairs = (re.fullmatch(r"([\w.-]+) ?==(\S+)", line.strip()) for line in lines)
    return {re.sub(r"[-_.]+", "-", pair[1]).lower(): pair[2] for pair in pairs if pair}


def read_pins(name):
    return pins((ENVS / name).read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("name", ["requirements", "requirements-test"])
def test_direct_requirements_are_locked(name):
    direct, locked = read_pins(f"{name}.in"), read_pins(f"{name}.txt")
    lines = (ENVS / f"{name}.in").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if line.strip() and not line.startswith("#")]
    assert len(direct) == len(wanted), "every line pins one package"
    assert direct.items() <= (locked | read_pins("requirements.txt")).items()


def test_conda_environment_has_the_pins_of_pip():
    environment = yaml.safe_load((ENVS / "environment.yaml").read_text(encoding="utf-8"))
    *conda, pip = environment["dependencies"]
    found = pins(conda) | pins(pip["pip"])
    named = {CONDA_TO_PIP.get(name, name): version for name, version in found.items()}
    assert named == read_pins("requirements.in")

"""Write the locked requirements and the conda environment from what is installed.

Run it in a fresh environment after `pip install -r envs/requirements.in` (and the same for the
tests), so that both files hold the same pins.
"""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement

ENVS = Path(__file__).parent.parent / "envs"
# Where conda-forge has another name than PyPI, as far as the direct requirements go.
_CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base", "jinja2": "jinja2"}
# Only pip has these.
_PIP_ONLY = {"ome-zarr-models"}


def main() -> None:
    """Write requirements.txt, requirements-test.txt and environment.yaml."""
    frozen = frozen_versions()
    workflow = closure(direct_names(ENVS / "requirements.in"))
    tests = closure(direct_names(ENVS / "requirements-test.in")) - workflow
    header = "# Written by scripts/write_requirements.py from {}; do not edit.\n"
    for names, source, target in (
        (workflow, "requirements.in", "requirements.txt"),
        (tests, "requirements-test.in", "requirements-test.txt"),
    ):
        lines = [f"{name}=={frozen[name]}\n" for name in sorted(names) if name in frozen]
        (ENVS / target).write_text(header.format(source) + "".join(lines), encoding="utf-8")
    (ENVS / "environment.yaml").write_text(
        header.format("requirements.in") + conda_environment(frozen), encoding="utf-8"
    )


def conda_environment(frozen: dict[str, str]) -> str:
    """Return the conda environment with the pins of the direct requirements."""
    direct = direct_names(ENVS / "requirements.in")
    conda = sorted(name for name in direct if name not in _PIP_ONLY)
    lines = ["name: besselflow", "channels:", "  - conda-forge", "  - bioconda", "  - nodefaults"]
    lines += ["dependencies:", "  - python >=3.11,<3.13", "  - pip"]
    lines += [f"  - {_CONDA_NAMES.get(name, name)} =={frozen[name]}" for name in conda]
    lines += ["  - pip:"]
    lines += [f"      - {name}=={frozen[name]}" for name in sorted(_PIP_ONLY & direct)]
    return "\n".join(lines) + "\n"


def normalise(name: str) -> str:
    """Return a package name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def direct_names(path: Path) -> set[str]:
    """Return the packages that a requirements file names."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return {normalise(re.split(r"[=<>\[ ]", line)[0]) for line in lines if line and line[0] != "#"}


def frozen_versions() -> dict[str, str]:
    """Return the installed versions, without the build tags of local wheels."""
    command = [sys.executable, "-m", "pip", "freeze", "--exclude-editable"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    pairs = (line.split("==") for line in lines if "==" in line)
    return {normalise(name): version.split("+")[0] for name, version in pairs}


def closure(names: set[str]) -> set[str]:
    """Return the packages and all that they need."""
    todo, seen = {(name, "") for name in names}, set()
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            needs = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:
            continue
        for need in needs:
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                todo |= {(normalise(need.name), part) for part in ("", *need.extras)}
    return {name for name, _ in seen}


if __name__ == "__main__":
    main()

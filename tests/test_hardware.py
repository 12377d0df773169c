"""How much memory a process may take, by the machine and by the control groups around it."""

import os

import pytest

from besselflow.hardware import memory_bytes

INSTALLED = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
SMALL, TINY = 2**27, 2**26


def confined(root, own, limits):
    """Write what Linux tells of the control groups of a process."""
    limits = {"proc/self/cgroup": own, **limits}
    for path, text in limits.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n", encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("own", "limits", "expected"),
    [
        ("0::/job", {"sys/fs/cgroup/job/memory.max": SMALL}, SMALL),
        ("0::/job", {"sys/fs/cgroup/job/memory.max": "max"}, INSTALLED),
        ("0::/job", {"sys/fs/cgroup/job/memory.max": 2**60}, INSTALLED),
        # The step of a job whose job, or whose machine, is confined.
        (
            "0::/slurm/job/step",
            {
                "sys/fs/cgroup/slurm/job/memory.max": TINY,
                "sys/fs/cgroup/slurm/memory.max": SMALL,
                "sys/fs/cgroup/slurm/job/step/memory.max": "max",
            },
            TINY,
        ),
        # In a container, the name is that outside of it.
        ("0::/docker/abc", {"sys/fs/cgroup/memory.max": SMALL}, SMALL),
        (
            "12:cpu,cpuacct:/\n9:hugetlb,memory:/job\n0::/",
            {"sys/fs/cgroup/memory/job/memory.limit_in_bytes": SMALL},
            SMALL,
        ),
        ("9:memory:/", {"sys/fs/cgroup/memory/memory.limit_in_bytes": 2**63 - 4096}, INSTALLED),
        # That of another group, and a file above all groups.
        ("0::/job", {"sys/fs/cgroup/other/memory.max": SMALL, "sys/fs/memory.max": 1}, INSTALLED),
    ],
)
def test_the_least_of_all_limits_counts(tmp_path, own, limits, expected):
    assert memory_bytes(confined(tmp_path, own, limits)) == expected


def test_without_control_groups_it_is_that_of_the_machine(tmp_path):
    assert memory_bytes(tmp_path) == INSTALLED
    assert 0 < memory_bytes() <= INSTALLED

"""The hardware that a job computes on: its names for logs and reports, and its memory."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

MARK = "computed on: "
"""What the line of a job's log starts with that names its hardware."""


def cpu_name() -> str:
    """Name the processor as its maker does, where the system tells."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", information.read_text(), re.MULTILINE)
        if found:
            return found[1]
    return platform.processor() or platform.machine()


def describe_cpu(threads: int) -> str:
    """Name the processor, and how many threads a job may use on it."""
    return f"{cpu_name()}, {threads} thread{'' if threads == 1 else 's'}"


def gpu_name() -> str | None:
    """Name the GPU that this process has computed on; None where it has used none."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return torch.cuda.get_device_name()


def describe_hardware(threads: int) -> str:
    """Name GPU, processor, threads and machine that this process has computed on.

    Parameters
    ----------
    threads : int
        Threads that the job may use on the CPU.
    """
    return ", ".join(filter(None, [gpu_name(), describe_cpu(threads), socket.gethostname()]))


def hardware_in(log: str) -> str:
    """Return the hardware that a job's log names; empty where it names none, as older ones do."""
    lines = re.findall(rf"^.* INFO {MARK}(.+)$", log, re.MULTILINE)
    return lines[-1] if lines else ""


def memory_bytes(root: Path = Path("/")) -> int:
    """Return how much memory this process and those beside it may take.

    It is that of the machine, or less where a container or a job of a cluster is confined to a
    control group.

    Parameters
    ----------
    root : pathlib.Path
        Of the file system in which Linux tells of control groups.
    """
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([installed, *_limits(root)])


def _limits(root: Path) -> Iterator[int]:
    """Give the limits of all control groups around this process, of either version."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, own = line.split(":", 2)
        if controllers == "":
            mount, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            mount, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        group = mount / own.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(mount):
                with contextlib.suppress(OSError, ValueError):  # `max` is no limit.
                    yield int((folder / name).read_text(encoding="utf-8"))

"""A Slurm cluster of one node, which is this machine, for the tests that start and stop it.

No systemd and no cgroups are needed, so that it runs inside a container: the daemons are started
one by one, and memory is watched by polling. The node claims a GPU that does not exist, and every
partition is there for one thing that can happen on a real cluster.
"""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

# Where the daemons and the steps of jobs look; no environment variable reaches all of them.
CONFIG = Path("/etc/slurm/slurm.conf")
GPU_CONFIG = CONFIG.with_name("gres.conf")
STATE = Path("/var/lib/besselflow-test-cluster")
MUNGE_PID = Path("/run/munge/munged.pid")
MARK = "# Written by the tests of BesselFlow."
PROGRAMS = ("munged", "slurmctld", "slurmd", "sinfo", "sbatch", "scontrol")

# Limits and intervals are those of a test: everything that a site would wait for happens within
# seconds. Finished jobs are remembered for an hour, since squeue is what tells their fate.
CONFIGURATION = """{mark}
ClusterName=besselflow
SlurmctldHost={host}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation={state}/controller
SlurmdSpoolDir={state}/node
SlurmctldPidFile={state}/slurmctld.pid
SlurmdPidFile={state}/slurmd.pid
SlurmctldLogFile={state}/slurmctld.log
SlurmdLogFile={state}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=500
EnforcePartLimits=ALL
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=2
OverTimeLimit=0
MinJobAge=3600
ReturnToService=2
GresTypes=gpu
NodeName={host} CPUs={cpus} RealMemory={memory_mb} Gres=gpu:1 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=03:00:00 PriorityTier=2 PreemptMode=OFF
PartitionName=yielding Nodes={host} MaxTime=01:00:00 PriorityTier=1 PreemptMode=REQUEUE
PartitionName=urgent Nodes={host} MaxTime=01:00:00 PriorityTier=9 PreemptMode=OFF
"""
GPU = "{mark}\nNodeName={host} Name=gpu File=/dev/null\n"


def why_not():
    """Say in a sentence why no cluster can be started here, or return None."""
    missing = [program for program in PROGRAMS if find(program) is None]
    if missing:
        return f"Slurm is not installed ({', '.join(missing)} missing)"
    if os.geteuid() != 0:
        return "the daemons of Slurm can only be started by root"
    if is_foreign(CONFIG) and ask("sinfo", "-h"):
        return f"{CONFIG} belongs to a cluster that is running, which the tests leave alone"
    return None


def is_foreign(path):
    """Say whether a file is there that these tests have not written."""
    return path.exists() and MARK not in path.read_text(encoding="utf-8")


def saved(path):
    """Return where a file of somebody else lies while the cluster runs."""
    return path.with_name(f"{path.name}.before-besselflow-tests")


def find(program):
    """Return the path of a program; those for administrators are not in every user's PATH."""
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def start():
    """Start the daemons with an empty queue, and return when the node takes jobs."""
    stop()
    host = socket.gethostname().partition(".")[0]
    total_mb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    facts = {
        "mark": MARK,
        "host": host,
        "state": STATE,
        "cpus": os.cpu_count(),
        "memory_mb": min(16_000, int(0.9 * total_mb)),
    }
    shutil.rmtree(STATE, ignore_errors=True)
    for folder in (CONFIG.parent, STATE / "controller", STATE / "node"):
        folder.mkdir(parents=True, exist_ok=True)
    for path, text in ((CONFIG, CONFIGURATION), (GPU_CONFIG, GPU)):
        if is_foreign(path):
            path.rename(saved(path))
        path.write_text(text.format(**facts), encoding="utf-8")
    if subprocess.run(["munge", "-n"], capture_output=True).returncode:
        start_munge()
    subprocess.run([find("slurmctld"), "-c"], check=True)
    subprocess.run([find("slurmd"), "-c"], check=True)
    until(lambda: ask("sinfo", "-h", "-o", "%T").split()[:1] == ["idle"], "the node to be idle")


def start_munge():
    """Start the daemon that Slurm signs its messages with, under the user it insists on."""
    folder = MUNGE_PID.parent
    folder.mkdir(parents=True, exist_ok=True)
    shutil.chown(folder, "munge", "munge")
    folder.chmod(0o755)
    subprocess.run([find("munged")], user="munge", group="munge", extra_groups=[], check=True)


def stop():
    """Cancel all jobs and end the daemons; does nothing where none runs."""
    pid_files = [STATE / "slurmd.pid", STATE / "slurmctld.pid"]
    if any(is_running(path) for path in pid_files):
        for job in jobs():
            ask("scancel", job)
        until(lambda: not jobs(), "the jobs to end")
    for path in [*pid_files, MUNGE_PID]:
        if is_running(path):
            os.kill(int(path.read_text()), 15)
            until(lambda path=path: not is_running(path), f"the process of {path} to end")
    for path in (CONFIG, GPU_CONFIG):
        if path.exists() and not is_foreign(path):
            path.unlink()
        if saved(path).exists():
            saved(path).rename(path)


def is_running(pid_file):
    """Say whether the process that wrote a file with its number is alive."""
    try:
        return Path(f"/proc/{int(pid_file.read_text())}").exists()
    except (OSError, ValueError):
        return False


def submitted(*fields):
    """Return what the cluster remembers of all jobs since its start, in the order of their numbers.

    Fields are named as `squeue --Format` names them.
    """
    form = ",".join(f"{field}:200" for field in fields)
    lines = ask("squeue", "-h", "-t", "all", "-S", "i", "-O", form).splitlines()
    return [
        tuple(line[200 * n : 200 * (n + 1)].strip() for n in range(len(fields))) for line in lines
    ]


def jobs(*options):
    """Return the numbers of the jobs that are not over."""
    return ask("squeue", "-h", "-o", "%i", *options).split()


def ask(*command):
    """Return what a command of Slurm prints, and nothing where it does not answer."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
    except subprocess.TimeoutExpired:
        return ""


def until(condition, what, seconds=60):
    """Return as soon as a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} s for {what}; the logs are in {STATE}")
        time.sleep(0.1)

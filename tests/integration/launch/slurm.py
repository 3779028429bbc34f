"""A Slurm on this machine, of one node or more: each is a slurmd of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from getpass import getuser
from pathlib import Path

import pytest

from tests.integration.workers.bench import wait_until

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
SlurmctldPort={port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
KillWait=60
MinJobAge=3600
PartitionName=all Nodes=ALL Default=YES State=UP
"""
NODE = "NodeName={name} NodeAddr=127.0.0.1 Port={port} CPUs=2 State=UNKNOWN\n"


@contextmanager
def slurm_of(folder: Path, monkeypatch: pytest.MonkeyPatch, *, nodes: int) -> Iterator[None]:
    """Run a Slurm of so many nodes in a folder during the block; skips where it is not installed.

    The first node has the name of this machine, which others can look up, as they can on a cluster. Ended jobs stay
    in its list for an hour (`MinJobAge`): after the usual 300 seconds, a slow test would not find them.
    """
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin:/sbin")
    missing = [name for name in ("slurmctld", "slurmd", "sbatch", "srun") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"Slurm is not installed: there is no {', '.join(missing)}")
    host = socket.gethostname()
    names = [host, *(f"{host}-{place}" for place in range(2, nodes + 1))]
    (folder / "state").mkdir(parents=True)
    with ExitStack() as ports:
        port, *of_nodes = [
            ports.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(nodes + 1)
        ]
    configuration = folder / "slurm.conf"
    with configuration.open("w") as file:
        file.write(CONFIGURATION.format(host=host, user=getuser(), folder=folder, port=port))
        file.writelines(NODE.format(name=name, port=port) for name, port in zip(names, of_nodes, strict=True))
    monkeypatch.setenv("SLURM_CONF", str(configuration))
    with ExitStack() as stack:
        for program in (["slurmctld", "-D"], *(["slurmd", "-D", "-N", name] for name in names)):
            process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.terminate)
        wait_until(lambda: said("sinfo", "-h", "-N", "-o", "%t").split() == ["idle"] * nodes, "the nodes are up")
        yield
        said("scancel", "--user", getuser())
        wait_until(lambda: not said("squeue", "-h"), "no job is left")


def said(*command: str) -> str:
    """Return what a command of Slurm prints."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout

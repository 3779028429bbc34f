"""Workers in the jobs of a Slurm array, through submitit: a job is `hpo launch local` with what Slurm has given it.

Some time before its limit, Slurm signals a job. Its workers then write checkpoints and give their trials back, and the
job goes back into Slurm's queue.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from ..errors import SetupError
from ..installation import EXIT_MACHINE, EXIT_TOKEN, PYTHON, SECRET_VARIABLES, child_environment, ending_with_parent

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

_REQUEUES: Final = 1_000_000
"""As often as there is work: the number that submitit wants is for jobs that make no progress."""
_NOTICE_SIGNAL: Final = signal.SIGUSR2
_VERDICT_SECONDS: Final = 600.0
"""Longer than Slurm waits between SIGTERM and the end of a job."""
_FIRST_PORT: Final = 20_000
_PORTS: Final = 10_000
"""Below the ports that a kernel gives to whoever asks for any; two jobs of one machine rarely have the same."""
_TIME: Final = re.compile(r"(?:(?P<days>\d+)-)?(?P<rest>\d+(?::\d+){0,2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmArray:
    """What is asked of Slurm for the jobs of an array."""

    jobs: int
    minutes: int
    """Time limit of a job."""
    notice_seconds: int
    """How long before the limit the workers are asked to give their trials back."""
    gpus: int
    """Of each job, on each of its machines."""
    nodes: int = 1
    """Machines of each job."""
    cpus: int | None = None
    memory: str | None = None
    """In Slurm's words: `32G`."""
    partition: str | None = None
    account: str | None = None
    setup: Sequence[str] = ()
    """Lines of shell that run first, such as `module load cuda`."""
    further: Mapping[str, str] = field(default_factory=dict)
    """Further options of `sbatch`."""

    def parameters(self) -> dict[str, Any]:
        """Return these as submitit names them."""
        found = {
            "job_name": "hpo-workers",
            "time": self.minutes,
            "nodes": self.nodes,
            "ntasks_per_node": 1,
            "gpus_per_node": self.gpus or None,
            "cpus_per_task": self.cpus,
            "partition": self.partition,
            "account": self.account,
            "signal_delay_s": self.notice_seconds,
            "array_parallelism": self.jobs,
            "setup": list(self.setup) or None,
            # Since Slurm 22.05 a step does not take the number over from its job.
            "srun_args": None if self.cpus is None else [f"--cpus-per-task={self.cpus}"],
            "additional_parameters": {
                "requeue": True,  # also when a node fails
                **({} if self.memory is None else {"mem": self.memory}),
                **self.further,
            },
        }
        return {name: value for name, value in found.items() if value is not None}


class WorkersJob:
    """What submitit runs in a job: a launcher, until nothing is left to do or Slurm wants the machine back."""

    def __init__(self, command: Sequence[str], *, nodes: int = 1) -> None:
        """Prepare.

        Args:
            command: of the launcher, without secrets: submitit writes it into a file.
            nodes: machines of the job: it runs on each, and its workers are a group.
        """
        self._command = list(command)
        self._nodes = nodes
        self._pid: int | None = None
        self._is_terminated = False

    def __call__(self, place: int) -> None:
        """Run the launcher of the job at a place of the array.

        Raises:
            SystemExit: with its status, which becomes that of the job.
        """
        signal.signal(signal.SIGTERM, self._terminate)
        self._pid = self._start()
        status = _status_of(self._pid)
        if self._is_terminated:
            # By `scancel`, or for a job of higher priority. A job that ended by itself now would not be queued again
            # in the second case: so that it is Slurm that ends it.
            time.sleep(_VERDICT_SECONDS)
        if status:
            raise SystemExit(status)

    def checkpoint(self, place: int) -> DelayedSubmission | None:
        """Have the workers give their trials back, and return what the job runs when its turn comes again.

        submitit calls this when the signal before the time limit has come. None is returned, and the job fails, where
        starting again would not help.
        """
        from submitit.helpers import DelayedSubmission

        if self._pid is not None:
            os.kill(self._pid, signal.SIGTERM)
            if _status_of(self._pid) in (EXIT_TOKEN, EXIT_MACHINE):
                return None
        return DelayedSubmission(WorkersJob(self._command, nodes=self._nodes), place)

    def _start(self) -> int:
        # Slurm sends its signals to all processes of a step; this one is for submitit alone.
        before = signal.signal(_NOTICE_SIGNAL, signal.SIG_IGN)
        try:
            command = [*self._command, *([] if self._nodes == 1 else group_options(self._nodes))]
            process = subprocess.Popen(ending_with_parent(command), env=child_environment())
        finally:
            signal.signal(_NOTICE_SIGNAL, before)
        return process.pid

    def _terminate(self, number: int, _frame: FrameType | None) -> None:
        self._is_terminated = True
        if self._pid is not None:
            os.kill(self._pid, number)


def group_options(nodes: int) -> list[str]:
    """Return the options with which the worker of this machine finds the others of its job: the first one leads."""
    place = _submitit().JobEnvironment()
    port = _FIRST_PORT + int(place.raw_job_id) % _PORTS
    return ["--nodes", str(nodes), "--node-rank", str(place.node), "--meet", f"{place.hostnames[0]}:{port}"]


def submit(job: WorkersJob, array: SlurmArray, folder: Path) -> str:
    """Submit the array and return Slurm's number of it.

    Args:
        folder: for the files of submitit and the outputs of the jobs; all nodes see it.

    Raises:
        SetupError: submitit is not installed, there is no Slurm, or Slurm refuses the jobs.
    """
    submitit = _submitit()
    for name in SECRET_VARIABLES:
        os.environ.pop(name, None)  # Slurm hands the environment to the jobs, and keeps it in files of its own
    try:
        executor = submitit.SlurmExecutor(folder, max_num_timeout=_REQUEUES, python=shlex.join(PYTHON))
        executor.update_parameters(**array.parameters())
        jobs = executor.map_array(job, range(array.jobs))
    except (RuntimeError, OSError) as error:  # those of submitit are of the first kind
        raise SetupError(f"Slurm took no jobs: {' '.join(str(error).split())}") from error
    return str(jobs[0].job_id).partition("_")[0]


def script(array: SlurmArray, folder: Path) -> str:
    """Return the script that `submit` would give to `sbatch`. It needs no Slurm on this machine.

    Raises:
        SetupError: submitit is not installed.
    """
    _submitit()
    from submitit.slurm.slurm import _make_sbatch_string

    command = f"{shlex.join(PYTHON)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    count = array.jobs if array.jobs > 1 else None
    text: str = _make_sbatch_string(command=command, folder=folder, map_count=count, **array.parameters())
    return text


def minutes_of(time: str) -> int:
    """Return a time limit in minutes, rounded up, from one of the forms of Slurm.

    Args:
        time: `MINUTES`, `MINUTES:SECONDS`, `HOURS:MINUTES:SECONDS`, `DAYS-HOURS`, `DAYS-HOURS:MINUTES` or
            `DAYS-HOURS:MINUTES:SECONDS`.

    Raises:
        SetupError: it has none of these forms, or is nothing.
    """
    found = _TIME.fullmatch(time)
    parts = [] if found is None else [int(part) for part in found["rest"].split(":")]
    if found is not None and found["days"] is not None:
        hours, minutes, seconds = [*parts, 0, 0][:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, (minutes, seconds) = 0, [*parts, 0, 0][:2]
    whole = 24 * 60 * int(found["days"] or 0) + 60 * hours + minutes + -(-seconds // 60) if found is not None else 0
    if whole < 1:
        raise SetupError(f"--time {time}: write it as Slurm does, such as 240, 04:00:00 or 2-00:00:00")
    return whole


def _status_of(pid: int) -> int:
    """Return the exit status of a child once it has ended, below 0 the signal that ended it.

    A signal handler may ask while the code that it interrupts does: the child stays for both.
    """
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None, "only WNOHANG returns nothing"  # noqa: S101 - a fact of waitid
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def _submitit() -> Any:
    try:
        import submitit
    except ImportError:
        raise SetupError("`hpo launch slurm` needs submitit: pip install 'video-hpo[slurm]'") from None
    return submitit

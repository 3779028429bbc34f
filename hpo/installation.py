"""A check at start-up that all five packages are imported from the same installation, and starting our own processes.

Their names are short and common: a folder called `data` or `models` beside a script would be imported instead of ours.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from .errors import SetupError

PACKAGES = ("hpo", "models", "data", "workers", "api")
SAFE_PATH: Final = {"PYTHONSAFEPATH": "1"}
"""Part of the environment of our processes: what they start does not import from the current folder either."""
PYTHON: Final = (sys.executable, "-P")
"""The beginning of a command in Python that imports nothing from the current folder."""
SECRET_VARIABLES: Final = frozenset({"HPO_SECRET", "HPO_TOKEN", "DATABASE_URL"})
"""Environment variables that hold secrets."""
STOP_SECONDS: Final = 40.0
"""More than a worker takes to give its trial back."""
REPEATED_SECONDS: Final = 2.0
"""SIGTERM that comes again so soon is the same one: systemd, Slurm and others send it to all processes of a service,
and a launcher among these sends it on."""
EXIT_USAGE: Final = 2
"""Status of our commands after a mistake in their options."""
EXIT_TOKEN: Final = 5
"""Status of our commands when the token is unknown or lacks the scope."""
EXIT_MACHINE: Final = 7
"""Status of a worker whose machine cannot train, such as after its GPU failed: starting it again needs a repair."""
_ENDS_WITH_PARENT: Final = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if sys.argv[2]:
    os.sched_setaffinity(0, map(int, sys.argv[2].split(",")))
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[3], sys.argv[3:])
"""


def check_installation() -> None:
    """Check that all five packages are imported from one folder.

    Raises:
        SetupError: a package comes from another folder; the message names both.
    """
    ours = Path(__file__).resolve().parents[1]
    for name in PACKAGES:
        found = find_spec(name)
        place = None if found is None or found.origin is None else Path(found.origin).resolve().parents[1]
        if place == ours:
            continue
        where = "cannot be found" if place is None else f"is imported from {place}"
        raise SetupError(
            f"the package {name!r} {where}, but video-hpo is installed in {ours}: run from another folder, "
            f"or remove the folder that shadows it from PYTHONPATH"
        )


def python_command(code: str, *arguments: str) -> list[str]:
    """Return the command of a process that runs `code` and imports nothing from the current folder.

    The folder may be anybody's: a package `models` or `data` in it, or a `sitecustomize.py`, would run with the
    secrets of the process. Its environment is `child_environment`, with what else it needs.
    """
    return [*PYTHON, "-c", code, *arguments]


def child_environment() -> dict[str, str]:
    """Return the environment for a process of ours: without secrets, which it is given only where it needs them."""
    kept = {name: value for name, value in os.environ.items() if name not in SECRET_VARIABLES}
    return {**kept, **SAFE_PATH}


def program_path(program: str) -> str:
    """Return the path of one of our commands, `hpo` or `hpo-worker`, of this installation."""
    return str(Path(sys.executable).with_name(program))


def ending_with_parent(command: Sequence[str], *, on: Collection[int] | None = None) -> list[str]:
    """Return a command that the kernel ends with SIGTERM when the thread that started it ends, however that happens.

    Args:
        command: begins with the path of a program.
        on: the cores that it may run on; None for those of this process.
    """
    return python_command(_ENDS_WITH_PARENT, str(os.getpid()), ",".join(map(str, on or ())), *command)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def in_background(
    command: Sequence[str], *, log: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process of ours until the block ends; see `start_in_background` and `end`."""
    process = start_in_background(command, log=log, environment=environment)
    try:
        yield process
    finally:
        end(process)


def start_in_background(
    command: Sequence[str], *, log: Path, environment: Mapping[str, str], append: bool = False
) -> subprocess.Popen[bytes]:
    """Start a process of ours; its output goes to the file `log`, which is made anew unless it is appended to.

    It is in a session of its own: Ctrl-C reaches the program of the person alone, which then ends it in order.
    """
    with log.open("ab" if append else "wb") as file:
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process in order, or kill it after `STOP_SECONDS`."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

"""The process that has imported a person's function and waits: each trial is a fork of it.

A fresh process for each trial would import the function's libraries each time, which takes longer than a cheap
function. A fork begins where the import ended, and nothing of one trial is left in the next. Where a fork is not safe,
because the import has started threads or a GPU, this process says so, and each trial imports the function itself
(`main_alone`); see `fork_safety`.

Started as `python -P -c "from workers.process.template import main; main()" SOCKET ENTRY...`. It speaks JSON with its
worker over the socket, a message at a time, and ends when the worker closes it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from typing import Any, Final, NoReturn

from hpo.errors import HpoError

from ..device.main_memory import let_kernel_end_this_first
from ..functions.entry import Entry, LoadedFunction, load
from ..functions.failure import traceback_of_import
from .fork_safety import hindrance
from .function_job import NotesToWorker, run_function_job
from .messages import Job
from .pipes import EventPipe, Mailbox

MESSAGE_BYTES: Final = 64 * 1024


def main() -> None:
    """Import the function, say whether that went well, and fork a process for each trial."""
    _ignore_signals()
    control = socket.socket(fileno=int(sys.argv[1]))
    try:
        function = load(Entry.of_arguments(sys.argv[2:]))
    except HpoError as error:
        _say(control, {"failed": str(error)})
        return
    except BaseException as error:  # a module of the person's may raise anything, and exit too
        print(traceback_of_import(error), file=sys.stderr)
        reason = (str(error).splitlines() or [""])[0]
        _say(control, {"failed": f"the function cannot be imported ({type(error).__name__}: {reason})"})
        return
    why_not = hindrance()
    _say(control, {"ready": function.name, "version": function.version, "hindrance": why_not})
    if why_not is None:
        _Forks(control, function).serve()


def main_alone() -> None:
    """Import the function, wait for one job, and do it: the process of a trial where a fork is not safe."""
    _ignore_signals()
    let_kernel_end_this_first()
    events = EventPipe(int(sys.argv[1]))
    commands = os.dup(0)
    _close_input()
    function = load(Entry.of_arguments(sys.argv[2:]))
    _do(function, events, commands)


def _ignore_signals() -> None:
    """Ignore what the worker decides about; a terminal or Slurm sends signals to every process of the group.

    A handler does it, since programs that the function starts would inherit `SIG_IGN`: nothing could terminate them.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
        signal.siginterrupt(number, False)


def _heed_signals() -> None:
    """Let processes that the function forks be terminated: a pool of `multiprocessing` waits for that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _close_input() -> None:
    """Let the function, and what it starts, read nothing: commands of the worker come through a pipe of their own."""
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)


def _say(control: socket.socket, message: dict[str, Any], handles: tuple[int, ...] = ()) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the worker has ended
        socket.send_fds(control, [json.dumps(message).encode()], list(handles))


class _Forks:
    """Forks on request, and says how each process ended."""

    def __init__(self, control: socket.socket, function: LoadedFunction) -> None:
        self._control = control
        self._function = function
        self._running: set[int] = set()
        self._woken, self._wake = os.pipe()
        for handle in (self._woken, self._wake):
            os.set_blocking(handle, False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> None:
        """Serve until the worker closes the socket and all trials have ended, which the end of a worker ends."""
        control = [self._control.fileno()]
        while control or self._running:
            ready, _, _ = select.select([self._woken, *control], [], [])
            if self._woken in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._woken, 4096)
                self._reap()
            if set(control) & set(ready):
                data, handles, _, _ = socket.recv_fds(self._control, MESSAGE_BYTES, 3)
                if data:
                    self._fork(json.loads(data)["fork"], handles)
                else:
                    control = []

    def _fork(self, number: int, handles: list[int]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._be_trial(handles)
        for handle in handles:
            os.close(handle)
        self._running.add(pid)
        watch = os.pidfd_open(pid)
        _say(self._control, {"forked": number, "pid": pid}, (watch,))
        os.close(watch)

    def _be_trial(self, handles: list[int]) -> NoReturn:
        """Be the process of a trial: its commands, events and output are `handles`."""
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()  # what it starts is of its group, and ends with it
            self._control.close()
            os.close(self._woken)
            os.close(self._wake)
            commands, events, output = handles
            for handle in handles:
                os.set_inheritable(handle, False)  # a program that the function starts would keep it open
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.close(output)
            let_kernel_end_this_first()
            _do(self._function, EventPipe(events), commands)
        except BaseException:  # the fork ends here, whatever was raised
            traceback.print_exc()
        os._exit(1)

    def _reap(self) -> None:
        """Say of each process that has ended how it did, and end what it has started."""
        for pid in list(self._running):
            # Its number stays taken until it is waited for, so that its group cannot be another's.
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                continue
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            self._running.discard(pid)
            _say(self._control, {"exited": pid, "returncode": os.waitstatus_to_exitcode(status)})


def _do(function: LoadedFunction, events: EventPipe, commands: int) -> NoReturn:
    """Wait for the job at the pipe `commands`, do it, and end."""
    os.register_at_fork(after_in_child=_heed_signals)
    stream = os.fdopen(commands, encoding="utf-8")
    line = stream.readline()
    if line:
        job = Job.model_validate_json(line)
        import logging

        logging.basicConfig(level=logging.WARNING, handlers=[NotesToWorker(events), logging.StreamHandler()])
        run_function_job(job, function, events=events, mailbox=Mailbox(stream))
    # Threads of libraries may keep a finished process alive; everything that matters has been written.
    with contextlib.suppress(OSError):  # the disk of the log may be full
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)

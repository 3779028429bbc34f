"""Compiled updates: the blocks of a model, each compiled by itself with PyTorch's Inductor while updates are made.

Blocks of one kind and shape are compiled once, and what was compiled is kept on disk for the trials after this one.
All else computes as the blocks are written: validation, statistics of batch norms, latencies, exports, and batches
that are smaller than the first, as the last of an epoch may be. Names in the state dict do not change.

Whatever goes wrong when something is compiled ends compiling, with one warning, and not the run: its numbers are
those of a run without it, up to rounding.
"""

from __future__ import annotations

import copy
import grp
import logging
import os
import pwd
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import nn

from ..checkpoints.shared import make_folder
from .checkpointing import checkpointed_parts, wrap_forward
from .failure import ran_out_of_memory
from .joint_norm import keep_from_compilers
from .reproducibility import CompileMode, Runtime

COMPILE_SECONDS: Final = 600.0
"""What a process may spend on compiling; the watchdog of a worker waits twice as long for a batch."""
_RUNS: Final[dict[CompileMode, int]] = {"blocks": 2, "graphs": 3}
"""Updates that are tried: the first compiles, and a graph is recorded in the one after it."""
_CACHE_VARIABLE: Final = "TORCHINDUCTOR_CACHE_DIR"
_CPU_FACTS: Final = Path("/proc/cpuinfo")
_WAKE: Final = signal.SIGUSR1
"""Sent by this process to its own main thread, so that it leaves a compiler."""
_KINDS_OF_A_CLASS: Final = 512
"""Kinds and shapes of blocks of one class that PyTorch compiles; its default of 8 is for functions of one shape."""
_log = logging.getLogger(__name__)


class CompiledBlocks:
    """The blocks of one model, as they are computed in updates."""

    def __init__(
        self,
        model: nn.Module,
        mode: CompileMode,
        *,
        device: torch.device,
        threads: int = 1,
        cache: Path | None = None,
        seconds: float = COMPILE_SECONDS,
        each: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare; nothing is compiled before :meth:`begin`.

        Args:
            threads: processes that compile for a GPU at once.
            cache: folder for what is compiled; None for the default of PyTorch, in the folder of temporary files.
            seconds: what compiling may take in all.
            each: called when something was compiled, which shows that the process lives.
        """
        self.mode = mode
        self.graphs = 0
        """Pieces of the model that were compiled, or found in the cache."""
        self.problem: str | None = None
        """Why nothing is compiled any more."""
        self._device = device
        self._threads = threads
        self._cache = cache
        self._seconds_left = seconds
        self._each = each
        self._clips: int | None = None
        self._switch = _Switch()
        self._blocks: list[nn.Module] = []
        self._model = model
        self._is_hurried = False

    @classmethod
    def of(cls, model: nn.Module, runtime: Runtime, *, each: Callable[[], None]) -> Self | None:
        """Return those of a run; None where nothing is to be compiled."""
        if runtime.compile is None:
            return None
        return cls(
            model,
            runtime.compile,
            device=runtime.device,
            threads=runtime.threads,
            cache=runtime.compile_cache,
            each=each,
        )

    @property
    def in_force(self) -> CompileMode | None:
        """How updates are computed: None for as the blocks are written."""
        return None if self.problem is not None or not self._blocks else self.mode

    def begin(self, update: Callable[[], int], *, graphs_hinder: str | None = None) -> None:
        """Compile what an update needs, by making some; state that they change is the caller's to put back.

        Args:
            update: computes the loss and the gradients of a whole batch, and returns how many clips those were.
            graphs_hinder: why CUDA graphs cannot be used in this run, if so.
        """
        if self.mode == "graphs" and (graphs_hinder or self._device.type != "cuda"):
            _log.warning("CUDA graphs are not used: %s", graphs_hinder or "they need a GPU")
            self.mode = "blocks"
        problem: str | None = None
        try:
            self._prepare()
            for _ in range(_RUNS[self.mode]):
                if self.problem is None:
                    with self._on():
                        self._clips = update()
            if self.graphs == 0:
                problem = "no block of this model can be compiled"
        except Exception as error:  # compilers fail in any way, and a run must not
            short = ran_out_of_memory(error, self._device)
            problem = "compiled updates need more memory than there is" if short else _reason(error)
        # Only here, when the exception and all that its traceback refers to is gone, is their memory free.
        if problem is not None:
            self.give_up(problem)
        import torch._dynamo

        # From now on an error in the middle of a block must leave that block to be computed as it is written.
        torch._dynamo.config.suppress_errors = True

    @contextmanager
    def in_use(self, clips: int) -> Iterator[None]:
        """Have the model computed as compiled during the block, if a batch of so many clips is."""
        if clips != self._clips or self.in_force is None:
            yield
            return
        with self._on():
            yield

    def give_up(self, problem: str) -> None:
        """Compute as the blocks are written from the next update on, and say why; once.

        An update that is under way keeps what is compiled: activations must be computed again as they were before.
        """
        if self.problem is None:
            self.problem = problem
            _log.warning("updates are computed without compiled blocks: %s", problem)

    def leave_graphs(self, reason: str) -> None:
        """Compute by compiled blocks without CUDA graphs from the next update on, and free the memory of the graphs.

        What an update before has left to compute must be gone. The next one compiles anew; kernels are in the cache.
        """
        _log.warning("CUDA graphs are not used any more: %s", reason)
        self.mode = "blocks"
        torch.compiler.reset()

    def hurry(self) -> None:
        """Have the main thread leave its compiler, now or when it comes to one: the run is to end. Of any thread."""
        self._is_hurried = True
        if _EXIT.is_open:
            signal.pthread_kill(_EXIT.thread, _WAKE)

    @contextmanager
    def _within_compiler(self) -> Iterator[None]:
        """Let :meth:`hurry` end the block with an exception.

        Raises:
            _HurriedError: the run is to end.
        """
        if self._is_hurried:
            raise _HurriedError
        if threading.get_ident() != _EXIT.thread:
            yield
            return
        # It stays: while the block ends, the signal may be on its way, and nothing else would take it.
        signal.signal(_WAKE, _EXIT.leave)
        try:
            _EXIT.is_open = True
            if self._is_hurried:  # by now
                raise _HurriedError
            yield
        finally:
            _EXIT.is_open = False

    @contextmanager
    def _on(self) -> Iterator[None]:
        if self.mode == "graphs":
            torch.compiler.cudagraph_mark_step_begin()
        self._switch.is_on = self.problem is None
        try:
            yield
        finally:
            self._switch.is_on = False

    def _prepare(self) -> None:
        """Have each block compiled when it is first computed.

        Raises:
            OSError: the folder for what is compiled cannot be used.
        """
        import torch._dynamo
        import torch._inductor.config
        from torch._inductor.runtime.cache_dir_utils import default_cache_dir

        # PyTorch writes its default there when it is imported; anything else is what a person wants.
        if self._cache is not None and os.environ.get(_CACHE_VARIABLE) in (None, default_cache_dir()):
            os.environ[_CACHE_VARIABLE] = str(cache_folder(self._cache))
        keep_from_compilers()
        torch.compiler.reset()  # an earlier run of this process has compiled for a model of its own
        settings = torch._dynamo.config
        settings.suppress_errors = False  # a block that cannot be compiled is to be heard of in `begin`
        settings.optimize_ddp = False  # which would cut at the ends of DDP's buckets, and blocks are small
        settings.recompile_limit = settings.accumulated_recompile_limit = _KINDS_OF_A_CLASS
        torch._inductor.config.compile_threads = self._threads
        self._blocks = checkpointed_parts(self._model)
        for block in self._blocks:
            wrap_forward(block, self._switched)

    def _switched(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        compiled: Callable[..., Any] = torch.compile(forward, backend=self._compile, dynamic=False)
        return _Forward(forward, compiled, self._switch)

    def _compile(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        """Return a piece of the model, compiled; as it is written, if that fails. PyTorch calls this."""
        if self.problem is not None:
            return graph.forward
        # Compiling changes what it is given.
        as_written = torch.fx.GraphModule(graph, copy.deepcopy(graph.graph))
        began = time.monotonic()
        problem: str | None
        try:
            with self._within_compiler():
                compiled = self._by_inductor(graph, inputs)
        except _HurriedError:
            problem = "the run is to end; what was compiled is kept for the next one"
        except Exception as error:  # compilers fail in any way, and a run must not
            problem = _reason(error)
        else:
            self.graphs += 1
            self._each()
            self._seconds_left -= time.monotonic() - began
            if self._seconds_left > 0:
                return compiled
            problem = "compiling took too long; what was compiled is kept for the next trial"
        self.give_up(problem)
        return as_written.forward

    def _by_inductor(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        from torch._functorch import config as autograd_config
        from torch._inductor.compile_fx import compile_fx

        options: dict[str, Any] = {"fallback_random": True}  # dropout draws what it draws without compiling
        if self.mode == "graphs":
            options["triton.cudagraphs"] = True
        with ExitStack() as settings:
            # Else the backward pass is compiled when it is first needed, where nothing can be computed instead.
            settings.enter_context(autograd_config.patch(force_non_lazy_backward_lowering=True))
            found: Any = compile_fx(graph, inputs, config_patches=options)
        compiled: Callable[..., Any] = found
        return compiled


class _HurriedError(BaseException):
    """The run is to end. No exception that a compiler would take for one of its own."""


@dataclass(slots=True)
class _Exit:
    """The way out of a compiler for the main thread of this process, which alone handles signals."""

    thread: int
    is_open: bool = False

    def leave(self, *_: object) -> None:
        """Handle the signal, between two steps of whatever the thread does."""
        if self.is_open:
            self.is_open = False
            raise _HurriedError


_EXIT: Final = _Exit(threading.main_thread().ident or 0)


@dataclass(slots=True)
class _Switch:
    """Whether blocks are computed as compiled."""

    is_on: bool = False


@dataclass(frozen=True, slots=True)
class _Forward:
    """The forward pass of a block."""

    as_written: Callable[..., Any]
    compiled: Callable[..., Any]
    switch: _Switch

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return (self.compiled if self.switch.is_on else self.as_written)(*arguments, **named)


def cache_folder(root: Path) -> Path:
    """Return the folder for what is compiled with this PyTorch on a CPU like this one; it is there.

    What it holds is run as code, so that it is the user's alone. It is in `root` unless others could put another folder
    in its place there, as the users of a group can in a data directory that they share; else in the user's own cache.

    Raises:
        PermissionError: it is another user's, or others could write into it or put another in its place.
        OSError: it cannot be made.
    """
    make_folder(root)  # which several users may share
    place = root.resolve()
    if _replaceable(place) is not None:
        base = os.environ.get("XDG_CACHE_HOME")
        place = (Path(base) if base else Path.home() / ".cache") / "video-hpo" / "compiled"
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = place.resolve()
        if (where := _replaceable(place)) is not None:
            raise PermissionError(f"others could put another folder in place of {place}: they may write into {where}")
    kind = sha256(f"{torch.__version__}\n{_cpu_flags()}".encode()).hexdigest()[:12]
    user = place / f"user-{os.getuid()}"
    folder = user / kind
    for one in (user, folder):
        one.mkdir(mode=0o700, exist_ok=True)
        found = one.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o022:
            raise PermissionError(f"{one} must belong to the user of this process, and nobody else may write into it")
    return folder


def _replaceable(place: Path) -> Path | None:
    """Return the folder in which others could put another one in place of what this user makes in `place`, if any."""
    found: Path | None = None
    for folder in (place, *place.parents):
        facts = folder.stat()
        if facts.st_uid not in (os.getuid(), 0) or (_others_write(facts) and not facts.st_mode & stat.S_ISVTX):
            found = folder
        elif facts.st_mode & (stat.S_IXGRP | stat.S_IXOTH) == 0:
            found = None  # nobody else comes to what is in it
    return found


def _others_write(facts: os.stat_result) -> bool:
    """Return whether users besides this one may write; the group that many systems give each user has no others."""
    if facts.st_mode & stat.S_IWOTH:
        return True
    if not facts.st_mode & stat.S_IWGRP:
        return False
    try:
        user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(facts.st_gid)
    except KeyError:
        return True
    return group.gr_name != user or not set(group.gr_mem) <= {user}


def _cpu_flags() -> str:
    try:
        lines = _CPU_FACTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _reason(error: Exception) -> str:
    """Return the first line of what an exception says, that of its cause where PyTorch wraps one."""
    inner: BaseException | None = getattr(error, "inner_exception", None)
    found = inner or error
    return f"{type(found).__name__}: {(str(found).strip().splitlines() or [''])[0]}"[:300]

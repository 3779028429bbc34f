"""`hpo.tune`: a study of a function, with a service and workers on this machine, in one call."""

from __future__ import annotations

import functools
import inspect
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from ..errors import ConflictError, HpoError, NotFoundError, SetupError
from .portable import EntryReached, is_importing_entry, write_function
from .spaces import EPOCHS, Objective, Space, Wanted, optimizer_of

if TYPE_CHECKING:
    from ..client.http import Client
    from ..settings import Settings
    from .result import TuneResult

POLL_SECONDS: Final = 0.25
_SHOWN_SECONDS: Final = 2.0
"""The least time from one line of progress to the next, where they are not written over one another."""
_FAILURES: Final = 5
"""So many failures without any result end the study: the function has a mistake."""
_MOST_WORKERS: Final = 4
_TRIALS: Final = 50


def tune(
    function: Callable[..., Any],
    *,
    space: Space,
    objective: Objective | Sequence[Objective],
    direction: Literal["maximize", "minimize"] = "maximize",
    budget: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    epochs: int | None = None,
    base: Mapping[str, Any] | None = None,
    timeout_minutes: float | None = None,
    name: str | None = None,
    workers: int | None = None,
    gpus: Sequence[int] = (),
    threads: int | None = None,
    home: str | Path | None = None,
    progress: bool = True,
    **sections: Any,
) -> TuneResult:
    """Find the parameters with which a function does best.

    A service with a Postgres of its own and workers run on this machine until the study has ended; each trial is a
    process of its own. Ctrl-C ends them in order, and the same call with the same `name` continues the study.

    Args:
        function: called with a `hpo.Trial`. It reports metrics, or returns them. It may be of this script or notebook,
            a lambda or a closure.
        space: parameter to range: `(1, 9)`, `(1e-4, 1.0, "log")`, `["a", "b"]`, or a mapping as in a study spec.
        objective: a metric, `{"loss": "minimize"}`, or a list of these for a Pareto front.
        direction: of an objective that names none.
        budget: as in a study spec: `trials`, `wall_hours`, `gpu_hours`, `target`. Without one, 50 trials.
        metrics: further metrics that the function reports, with their directions.
        epochs: the most reports of a trial. Where nothing is said it is 40 for a function that calls `trial.epochs`
            itself, and 1 for others.
        base: further values in `trial.params`, the same in all trials.
        timeout_minutes: after which a trial has failed.
        name: of the study; a study of that name is continued, or returned if it has ended. Without one it is a new one.
        workers: processes that run trials at the same time; a core each, up to 4, where nothing is said. With `gpus`
            it is one for each.
        gpus: numbers of the GPUs to run on.
        threads: of each worker; the cores are shared out where nothing is said.
        home: data directory; that of the `hpo` command where nothing is said.
        progress: whether to write how far the study is to stderr.
        sections: further sections of a study spec: `constraints`, `rules`, `early_stopping`, `optimizer`, `finalists`.

    Raises:
        SpecError: the study is not valid; the message names the argument.
        SetupError: the function cannot be handed to workers, or the service does not start.
        FunctionFailedError: no trial had a result; the message has the traceback of the first.
    """
    if is_importing_entry():
        raise EntryReached
    limits = dict(budget or {"trials": _TRIALS})
    sections["optimizer"] = optimizer_of(sections.get("optimizer", {}), limits.get("trials"))
    wanted = Wanted(
        space=space,
        objective=objective,
        direction=direction,
        metrics=metrics or {},
        epochs=epochs or (EPOCHS if _asks_for_epochs(function) else 1),
        budget=limits,
        sections=sections,
        base=base or {},
        timeout_minutes=timeout_minutes,
    )
    from ..settings import Settings
    from .here import service
    from .here import workers as running_workers

    settings = Settings.load(home=None if home is None else Path(home))
    with ExitStack() as stack:
        client = stack.enter_context(service(settings))
        settings = Settings.load(home=settings.home)
        study = _study(client, wanted, name or _free_name(client, function))
        if study["state"] == "active":
            entry, file = _entry(function, settings.home / "functions")
            stack.callback(file.unlink, missing_ok=True) if file is not None else None
            always = ["--entry", entry, "--study", study["name"], "--url", client.url]
            arguments = [[*always, *device] for device in _devices(workers, gpus, threads)]
            processes = stack.enter_context(running_workers(settings, arguments, {}))
            with _interruptible(study["name"]):
                _watch(client, study["name"], settings, processes, progress=progress)
        return _result(client, study["name"], order=list(space))


class FunctionFailedError(HpoError):
    """No trial of a function had a result."""


def _asks_for_epochs(function: Callable[..., Any]) -> bool:
    called: Any = function
    while isinstance(called, functools.partial):
        called = called.func
    if not hasattr(inspect.unwrap(called), "__code__"):
        called = type(called).__call__
    code = getattr(inspect.unwrap(called), "__code__", None)
    return code is not None and "epochs" in code.co_names


def _free_name(client: Client, function: Callable[..., Any]) -> str:
    words = "".join(char if char.isalnum() and char.isascii() else "-" for char in getattr(function, "__name__", ""))
    stem = words.strip("-") or "function"
    taken = {study["name"] for study in client.studies()}
    return next(name for number in range(1, len(taken) + 2) if (name := f"{stem}-{number}") not in taken)


def _study(client: Client, wanted: Wanted, name: str) -> Mapping[str, Any]:
    """Return the study, new or to be continued.

    Raises:
        ConflictError: there is another study of this name.
    """
    from ..client.creating import create_new_study

    spec = wanted.spec(name)
    try:
        found = client.study(name)
    except NotFoundError:
        return client.run(create_new_study(spec))
    _require_same(found["spec"], spec)
    budget = {key: value for key, value in spec["budget"].items() if key != "target"}
    grown = {key: value for key, value in budget.items() if found["spec"]["budget"].get(key) != value}
    if found["state"] in ("completed", "stopped", "failed"):
        return client.reopen_study(name, **grown) if grown else found
    if grown:
        client.edit_study(name, **grown)
    return client.resume_study(name) if found["state"] == "paused" else client.study(name)


def _require_same(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    from ..spec import parse_spec, stored_spec

    known, asked = stored_spec(stored), parse_spec(wanted)
    for section in ("objectives", "constraints", "task", "space", "rules"):
        if getattr(known, section) != getattr(asked, section):
            raise ConflictError(
                f"there is a study {wanted['name']} already, with other {section}: call hpo.tune with another name"
            )


def _entry(function: Callable[..., Any], folder: Path) -> tuple[str, Path | None]:
    """Return what names the function for a worker, and the file that holds it, if there is one to be removed."""
    try:
        file = write_function(function, folder)
    except SetupError:
        script = getattr(sys.modules.get("__main__"), "__file__", None)
        name = getattr(function, "__qualname__", "")
        if function.__module__ == "__main__" and script is not None and name.isidentifier():
            return f"{Path(script).absolute()}:{name}", None
        raise
    return str(file), file


def _devices(count: int | None, gpus: Sequence[int], threads: int | None) -> list[list[str]]:
    """Return for each worker the options that say what it runs on."""
    from ..installation import cores

    most = count or min(cores(), _MOST_WORKERS)
    devices = [["--gpu", str(gpu)] for gpu in gpus] or [["--cpu"]] * most
    each = threads or max(1, cores() // len(devices))
    return [[*device, "--threads", str(each)] for device in devices]


@contextmanager
def _interruptible(study: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print(f"interrupted; the same call with name={study!r} continues the study", file=sys.stderr)
        raise


def _watch(client: Client, study: str, settings: Settings, processes: Sequence[Any], *, progress: bool) -> None:
    """Wait until the study has ended.

    Raises:
        FunctionFailedError: the first trials have all failed, or all have.
        SetupError: the workers have ended.
    """
    from .here import log_of_worker

    shown = _Progress(study) if progress else None
    while (found := client.study(study))["state"] == "active":
        counts = found["trial_counts"]
        if shown is not None:
            shown.show(found)
        if not counts.get("completed") and not counts.get("stopped") and counts.get("failed", 0) >= _FAILURES:
            client.stop_study(study)
            break
        if all(process.poll() is not None for process in processes):
            raise SetupError(f"the workers have ended; the log of the first says:\n{log_of_worker(settings, 0)}")
        time.sleep(POLL_SECONDS)
    if shown is not None:
        shown.end(client.study(study))


class _Progress:
    """Writes how far a study is: over one line in a terminal, else a line from time to time."""

    def __init__(self, study: str) -> None:
        self._study = study
        self._last = ""
        self._next_at = 0.0

    def show(self, study: Mapping[str, Any]) -> None:
        """Write where the study is, if that is news."""
        line = self._line(study)
        now = time.monotonic()
        if line == self._last or (now < self._next_at and not sys.stderr.isatty()):
            return
        self._last, self._next_at = line, now + _SHOWN_SECONDS
        if sys.stderr.isatty():
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def end(self, study: Mapping[str, Any]) -> None:
        """Write how the study ended."""
        self._next_at = 0.0
        self.show(study)
        if sys.stderr.isatty():
            print(file=sys.stderr)

    def _line(self, study: Mapping[str, Any]) -> str:
        over, of = study["progress"]["trials_over"], study["progress"]["trials"]
        best = study["best"]
        so_far = "" if best is None else f", best {best['metric']} {best['value']:.6g} (trial {best['number']})"
        failed = study["trial_counts"].get("failed", 0)
        return (
            f"{self._study}: {over}{f' of {of}' if of else ''} trials" + so_far + (f", {failed} failed" * bool(failed))
        )


def _result(client: Client, study: str, *, order: Sequence[str]) -> TuneResult:
    """Return the end of a study, with the parameters in the order in which they were written."""
    from ..results.evidence import spread_is_known
    from .result import TuneResult

    found, records = client.study(study), client.trials(study)
    try:
        best: Mapping[str, Any] = client.best(study)
    except HpoError as error:
        raise FunctionFailedError(_failure(study, records) or f"the study {study} has no result: {error}") from error
    evidence = best["evidence"]
    is_known = spread_is_known(evidence["expected"], evidence["expected_sd"])
    objectives = found["spec"]["objectives"]
    return TuneResult(
        study=study,
        url=client.url,
        state=found["state"],
        reason=found["state_reason"],
        objective=best["metric"],
        best_params={name: best["params"][name] for name in order if name in best["params"]},
        best_trial=best["number"],
        best_value=best["value"],
        best_expected=evidence["expected"] if is_known else None,
        best_sd=evidence["expected_sd"] if is_known else None,
        front=client.answer(study)["front"] if len(objectives) > 1 else [best["number"]],
        records=records,
        spec=found["spec"],
    )


def _failure(study: str, records: Sequence[Mapping[str, Any]]) -> str | None:
    """Return what to tell where no trial has a result, with the traceback of the first that failed."""
    failed = sorted((one for one in records if one["state"] == "failed"), key=lambda one: one["number"])
    if not failed:
        return None
    first, *_ = failed
    head, _, trace = str(first["failure_message"]).partition("\n")
    count = f"all {len(failed)} trials" if len(failed) > 1 else "the only trial"
    return f"{count} of {study} failed; trial {first['number']}: {head}\n{trace}".rstrip()

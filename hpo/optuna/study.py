"""A study as programs written for Optuna know it."""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from ..client.asked_trial import AskedTrial
from ..client.asking import Study as Asker
from ..client.http import Client
from ..client.replies import Value
from ..client.watching import ENDED
from ..errors import ConflictError, SetupError, StaleLeaseError, StudyExistsError
from ..functions.spaces import optimizer_of
from ..trial import Decision
from .limit import Limit
from .results import Results
from .suggested import Recording
from .trial import Trial, TrialPruned
from .trials import FrozenTrial, TrialState

Objective = Callable[[Trial], float | Sequence[float]]
Callback = Callable[["Study", FrozenTrial], None]
MOST_TRIALS: Final = 100_000
"""The budget of a study of which nobody says how many trials it may have."""
_log = logging.getLogger(__name__)


class _FirstTaken(BaseException):
    """Another program has the first trial, so that this run of the objective is nobody's."""


class Study(Results):
    """A study of the service, with the methods of Optuna's. `create_study` and `load_study` make it."""

    def __init__(self, client: Client, name: str, draft: Mapping[str, Any] | None, *, may_exist: bool = False) -> None:
        """Open a study, or keep the `draft` of its spec until its space is known."""
        super().__init__(client, name, draft)
        self._may_exist = may_exist
        self._guesses: list[dict[str, Value]] = []
        self._limit: Limit | None = None

    def __repr__(self) -> str:
        return f"Study({self.study_name!r})"

    # ---------------------------------------------------------------- running

    def optimize(  # noqa: PLR0917 - as in Optuna
        self,
        func: Objective,
        n_trials: int | None = None,
        timeout: float | None = None,
        n_jobs: int = 1,
        catch: type[Exception] | Iterable[type[Exception]] = (),
        callbacks: Iterable[Callback] | None = None,
    ) -> None:
        """Run an objective until the study ends, or this call has run `n_trials`, or `timeout` seconds are over.

        Args:
            func: returns a value for each objective.
            n_trials: the budget of the study, where this call creates it; a study that has ended may have so many more.
            timeout: after which no further trial begins.
            n_jobs: threads that run trials at the same time; -1 for one on each core.
            catch: exceptions of the objective after which the next trial runs. Each other one ends this call; its trial
                has failed either way.
            callbacks: called after each trial with this study and the trial.

        Raises:
            SetupError: what the objective suggests is not the space of the study.
        """
        caught = catch if isinstance(catch, tuple) else (catch,) if isinstance(catch, type) else tuple(catch)
        limit = self._limit = Limit(n_trials, None if timeout is None else time.monotonic() + timeout)
        after = list(callbacks or ())
        if self._asker is None:
            if not limit.take():
                return
            self._first(func, n_trials, limit, caught, after)
        else:
            self._give_room(n_trials)
        if limit.error is None:
            self._run_all(func, limit, _threads(n_jobs), caught, after)
        if limit.error is not None:
            raise limit.error

    def stop(self) -> None:
        """Begin no further trial in the running `optimize`. The study itself goes on, and `optimize` may again."""
        if self._limit is not None:
            self._limit.is_stopped = True

    def enqueue_trial(self, params: Mapping[str, Value]) -> None:
        """Have a configuration tried next."""
        if self._asker is None:
            self._guesses.append(dict(params))
        else:
            self.client.enqueue(self.study_name, [params])

    def ask(self) -> Trial:
        """Return a trial to run by hand; `tell` ends it.

        Raises:
            ConflictError: the study has ended, or its space is not known: give it to `create_study`.
        """
        if self._asker is None:
            raise ConflictError("the space of the study is not known yet: give it to create_study(space=...)")
        asked = self._asker.ask()
        if asked is None:
            raise ConflictError(f"study {self.study_name!r} has ended")
        return Trial(self._asker.spec, asked)

    def tell(
        self,
        trial: Trial,
        values: float | Sequence[float] | None = None,
        state: TrialState | None = None,
    ) -> FrozenTrial:
        """End a trial that `ask` gave, and return it."""
        if state is TrialState.FAIL:
            self._tell(trial, state="failed", message="told as failed")
        elif state is TrialState.PRUNED:
            self._prune(trial)
        else:
            self._tell(trial, value=self._values(values))
        return self._frozen(trial.number)

    def _first(
        self,
        func: Objective,
        n_trials: int | None,
        limit: Limit,
        catch: tuple[type[Exception], ...],
        callbacks: list[Callback],
    ) -> None:
        """Run the objective once to learn the space; the same run is the first trial of the study."""
        recording = Recording(wanted=self._guesses.pop(0) if self._guesses else {})

        def start(known: Recording) -> AskedTrial:
            asker = self._create(known, n_trials)
            trial.take_over(asker.spec)
            asked = asker.ask()
            if asked is None:
                raise _FirstTaken
            if {name: asked.params.get(name) for name in known.guess} != known.guess:
                asker.tell(asked, state="released")
                raise _FirstTaken
            return asked

        trial = Trial(None, recording=recording, start=start)
        try:
            self._run(func, trial, limit, catch, callbacks)
        except _FirstTaken:
            if limit.trials is not None:
                limit.trials += 1

    def _create(self, known: Recording, n_trials: int | None) -> Asker:
        """Create the study of a space, with its first run as a configuration that is asked for."""
        assert self._draft is not None  # noqa: S101 - else there is a study
        draft = self._draft
        if not known.space:
            raise SetupError("the objective suggested no parameter before its first report: there is nothing to search")
        optimizer = {**draft.get("optimizer", {}), "enqueue": [known.guess, *self._guesses]}
        budget = draft.get("budget") or {"trials": n_trials or MOST_TRIALS}
        base = {**draft["task"], "base": known.base}
        return self.open({**draft, "space": known.space, "task": base, "budget": budget, "optimizer": optimizer})

    def open(self, spec: Mapping[str, Any]) -> Asker:
        """Create the study in the service, or take the one that somebody else has just created."""
        optimizer = optimizer_of(spec.get("optimizer", {}), spec["budget"].get("trials"))
        try:
            self.client.create_study({**spec, "optimizer": optimizer})
        except StudyExistsError:
            if not self._may_exist:
                raise
        self._asker = Asker(self.client, self.study_name)
        return self._asker

    def _give_room(self, n_trials: int | None) -> None:
        """Let a study that has ended have `n_trials` more."""
        study = self.client.study(self.study_name)
        if n_trials is None or study["state"] not in ENDED:
            return
        planned = study["spec"]["budget"]["trials"] or study["progress"]["trials_over"]
        try:
            self.client.reopen_study(self.study_name, trials=planned + n_trials)
        except ConflictError:
            if self.client.study(self.study_name)["state"] in ENDED:
                raise  # else another program has just opened it

    def _run_all(
        self,
        func: Objective,
        limit: Limit,
        count: int,
        catch: tuple[type[Exception], ...],
        callbacks: list[Callback],
    ) -> None:
        if count == 1:
            self._work(func, limit, catch, callbacks)
            return
        name = f"trials of {self.study_name}"
        work = (func, limit, catch, callbacks)
        # A program that ends does not wait for their objectives: their trials are given back, and others run them.
        threads = [threading.Thread(target=self._work, args=work, name=name, daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:  # Ctrl-C reaches this thread alone
            limit.is_stopped = True
            raise

    def _work(
        self, func: Objective, limit: Limit, catch: tuple[type[Exception], ...], callbacks: list[Callback]
    ) -> None:
        asker = self._asker
        assert asker is not None  # noqa: S101 - it was made before
        try:
            while limit.take() and (asked := limit.ask(asker)) is not None:
                self._run(func, Trial(asker.spec, asked), limit, catch, callbacks)
        except BaseException as error:  # told in the thread that waits for all of them
            limit.error, limit.is_stopped = error, True

    def _run(
        self,
        func: Objective,
        trial: Trial,
        limit: Limit,
        catch: tuple[type[Exception], ...],
        callbacks: list[Callback],
    ) -> None:
        """Run the objective with a trial, and tell what came of it."""
        try:
            self._run_and_tell(func, trial, limit, catch)
        except StaleLeaseError as lost:
            _log.warning("trial %d is not counted: %s", trial.number, lost)
            return
        for callback in callbacks:
            callback(self, self._frozen(trial.number))

    def _run_and_tell(self, func: Objective, trial: Trial, limit: Limit, catch: tuple[type[Exception], ...]) -> None:
        try:
            result = func(trial)
            value = self._values(result)
        except _pruned():
            self._prune(trial)
        except (StaleLeaseError, _FirstTaken):
            raise
        except Exception as error:  # of the person's function, which may raise anything
            if isinstance(error, SetupError):  # the script is wrong, and the trial is not to blame
                self._give_back(trial)
                raise
            if not trial.has_begun and not isinstance(error, catch):
                raise  # the space may be known in part only, and a study of that would be of no use
            self._tell(trial, state="failed", message=_message(error))
            if not isinstance(error, catch):
                limit.error, limit.is_stopped = error, True
        except BaseException:  # Ctrl-C: another one gets the trial at once
            self._give_back(trial)
            raise
        else:
            self._tell(trial, value=value)
        if trial.unused:
            _log.info("trial %d never asked for %s", trial.number, ", ".join(trial.unused))

    def _give_back(self, trial: Trial) -> None:
        if trial.has_begun:
            self._tell(trial, state="released")

    def _prune(self, trial: Trial) -> None:
        asked = trial.asked
        if asked.decision in (Decision.PAUSE, Decision.ABANDON):
            self._tell(trial)
        elif asked.metrics:
            self._tell(trial, state="stopped")
        else:
            self._tell(trial, state="failed", message="the objective was pruned before it had reported a value")

    def _tell(self, trial: Trial, **told: Any) -> None:
        asked = trial.asked
        assert self._asker is not None  # noqa: S101 - the trial is of it
        self._offset = trial.offset
        self._attrs[asked.number] = dict(trial.user_attrs)
        environment = {"user_attrs": dict(trial.user_attrs)} if trial.user_attrs else {}
        self._asker.tell(asked, environment=environment, **told)

    def _values(self, result: float | Sequence[float] | None) -> dict[str, float]:
        """Return what an objective returned by metric.

        Raises:
            ConflictError: it is not a number for each objective.
        """
        names = self._objectives
        found = list(result) if isinstance(result, Sequence) else [result]
        try:
            return {name: float(value) for name, value in zip(names, found, strict=True)}  # type: ignore[arg-type]  # what is no number raises
        except (TypeError, ValueError) as error:
            raise ConflictError(f"the objective returned {result!r}, not a number for each of {names}") from error

    def close(self) -> None:
        """Give back what was asked for and not told."""
        if self._asker is not None:
            self._asker.close()


def _pruned() -> tuple[type[BaseException], ...]:
    """Return the exceptions with which an objective ends early: ours, and Optuna's where it was imported."""
    theirs = getattr(sys.modules.get("optuna"), "TrialPruned", None)
    return (TrialPruned,) if theirs is None else (TrialPruned, theirs)


def _message(error: BaseException) -> str:
    first = f"{type(error).__name__}: {error}".splitlines()[0]
    return "\n".join([first, *traceback.format_exception(error)])[:20_000]


def _threads(n_jobs: int) -> int:
    from ..installation import cores

    return cores() if n_jobs == -1 else max(1, n_jobs)

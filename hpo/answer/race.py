"""Which of the best configurations of a study is trained again next, with another seed, and when that is enough.

The finalists are the configurations that are most probably the best, at most `top` of them. Of the two
that are most probably the best, the one with fewer seeds gets the next (as in top-two Thompson sampling; Russo, 2020,
Simple Bayesian algorithms for best-arm identification): what decides is how the leader compares with its closest rival.
No more are trained once one of them is the best of them with the wanted probability. All follows from the trials:
whoever asks gets the same answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from ..spec.finalists import FinalistsConfig
from ..trial import FINALISTS, RESULT_STATES, Params, TrialRecord, TrialState
from .answer import Answer, Candidate

_Key = frozenset[tuple[str, object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Next:
    """What happens next."""

    trials: tuple[int, ...]
    """Numbers of trials, one for each training that begins now: its configuration is trained."""
    over: str | None = None
    """Why none is trained any more, as a sentence without a full stop; what still runs can stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What the trainings may use."""

    trials: int
    """Trainings of finalists in all."""
    at_once: int
    """At most so many run or wait at a time."""
    epochs: int
    """Epochs of each."""
    gpu_seconds: float | None = None
    """Device time that is left; None without a limit."""
    startup_seconds: float = 0.0
    """Device time that a training takes besides its epochs, which the budget counts too."""


def next_trainings(found: Answer, records: Iterable[TrialRecord], rules: FinalistsConfig, room: Room) -> Next:
    """Return which trials are trained again now, given the answer from the `records` of a study."""
    return _Race(found, [r for r in records if r.state is not TrialState.WITHDRAWN], rules, room).next()


class _Race:
    def __init__(self, found: Answer, records: Sequence[TrialRecord], rules: FinalistsConfig, room: Room) -> None:
        self._rules, self._room = rules, room
        self._by_number = {record.number: record for record in records}
        again = [record for record in records if record.replicate_of is not None]
        self._seeds = Counter(_key(record.params) for record in again)
        self._confirmed = Counter(_key(record.params) for record in again if record.state in RESULT_STATES)
        mine = [record for record in again if record.generator == FINALISTS]
        self._trained = len(mine)
        self._open = [record for record in mine if not record.state.is_terminal]
        begun = {_key(record.params) for record in mine}
        order = sorted(found.candidates, key=lambda one: (_key(one.params) not in begun, -one.probability))
        self._finalists = order[: rules.top]
        total = sum(one.probability for one in self._finalists)
        self._chances = {_key(one.params): one.probability / total if total else 0.0 for one in self._finalists}

    def next(self) -> Next:
        leader = max(self._finalists, key=lambda one: self._chances[_key(one.params)])
        chance = self._chances[_key(leader.params)]
        if chance >= self._rules.probability and self._confirmed[_key(leader.params)]:
            return Next(trials=(), over=self._sentence(leader, chance))
        chosen: list[int] = []
        left = self._gpu_seconds_left()
        allowed = self._room.trials - self._trained
        while len(chosen) < allowed and (one := self._undecided(left)) is not None:
            if len(self._open) + len(chosen) >= self._room.at_once:
                return Next(trials=tuple(chosen))
            chosen.append(one.trials[0])
            self._seeds[_key(one.params)] += 1
            left = None if left is None else left - self._cost(one.trials)
        is_over = not chosen and not self._open
        return Next(trials=tuple(chosen), over=self._sentence(leader, chance) if is_over else None)

    def _undecided(self, left: float | None) -> Candidate | None:
        """Return the finalist that gets the next seed; None where none may get one."""
        wanting = [
            one
            for one in self._finalists
            if self._seeds[_key(one.params)] < self._rules.seeds and (left is None or self._cost(one.trials) <= left)
        ]
        nearest = sorted(wanting, key=lambda one: -self._chances[_key(one.params)])[:2]
        return min(nearest, key=lambda one: self._seeds[_key(one.params)], default=None)

    def _gpu_seconds_left(self) -> float | None:
        if self._room.gpu_seconds is None:
            return None
        return self._room.gpu_seconds - sum(self._still_needed(record) for record in self._open)

    def _still_needed(self, record: TrialRecord) -> float:
        """Return the device time that a training which runs or waits is going to take."""
        begun = record.gpu_seconds + (self._room.startup_seconds if record.epochs_done else 0.0)
        return max(self._cost([record.replicate_of or 0]) - begun, 0.0)

    def _cost(self, numbers: Sequence[int]) -> float:
        """Return the device time that one training of a configuration takes, as its trials have shown."""
        ran = [self._by_number[number] for number in numbers if number in self._by_number]
        costs = [one.gpu_seconds / one.epochs_done * self._room.epochs for one in ran if one.epochs_done]
        return self._room.startup_seconds + (median(costs) if costs else 0.0)

    def _sentence(self, leader: Candidate, chance: float) -> str:
        trainings = "1 further training" if self._trained == 1 else f"{self._trained} further trainings"
        of_all = f"the best of {len(self._finalists)} finalists"
        return f"after {trainings} trial {leader.chosen} is {of_all} with a probability of {chance:.0%}"


def _key(params: Params) -> _Key:
    return frozenset(params.items())

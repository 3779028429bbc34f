"""What the lifecycle should do, said again in plain Python: the reference of the state machine test."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

TERMINAL = ("completed", "stopped", "failed", "withdrawn")
BEGUN = 2
"""The priority of what was given back once: it goes before fresh suggestions, and before what a person asked for."""


@dataclass(slots=True, kw_only=True)
class TrialModel:
    """One trial."""

    id: int
    number: int
    lr: float
    replicate_of: int | None = None
    """The number of the first trial of its configuration."""
    priority: int = 0
    """Those with a higher one are claimed first."""
    state: str = "suggested"
    attempt: int = 0
    retries: int = 0
    lease_id: UUID | None = None
    held: bool = False
    """Paused by the stopping rule and not promoted yet."""
    expired: bool = False
    backing_off: bool = False
    cancel: bool = False
    metrics: float | None = None
    failure_kind: str | None = None
    measured: dict[tuple[int, int], float] = field(default_factory=dict)
    """(attempt, step) to value; each costs one GPU second."""

    @property
    def over(self) -> bool:
        return self.state in TERMINAL

    def owned_by(self, attempt: int, lease_id: UUID) -> bool:
        """Return whether the fence holds: it is the latest claim, not given back, not over."""
        return not self.over and self.attempt == attempt and self.lease_id == lease_id

    def claim(self, lease_id: UUID) -> None:
        self.state, self.attempt, self.lease_id = "running", self.attempt + 1, lease_id
        self.expired = self.backing_off = False

    def heartbeat(self) -> None:
        if self.state == "suggested":
            self.state, self.retries = "running", self.retries - 1
        self.expired = self.backing_off = False

    def finish(self, outcome: str, value: float) -> None:
        self.state = self.outcome_of(outcome)
        self.metrics = None if outcome == "failed" else value
        self.failure_kind = "error" if self.state == "failed" else None
        self.backing_off = False

    def outcome_of(self, outcome: str) -> str:
        return "stopped" if self.cancel and outcome == "failed" else outcome

    def accepted(self, attempt: int, lease_id: UUID, outcome: str, value: float) -> bool:
        """Return whether exactly this result was accepted under exactly this lease."""
        return (
            self.state in ("completed", "stopped", "failed")
            and self.attempt == attempt
            and self.lease_id == lease_id
            and self.state == self.outcome_of(outcome)
            and self.metrics == (None if outcome == "failed" else value)
        )

    def lose(self, allowed_retries: int, *, keep_lease: bool) -> None:
        """Its worker died: again with a wait, or for good."""
        self.priority = BEGUN
        if self.cancel:
            self.stop()
        elif self.retries < allowed_retries:
            self.state, self.backing_off = "suggested", True
            self.lease_id = self.lease_id if keep_lease else None
        else:
            self.state, self.failure_kind, self.lease_id = "failed", "lost", None
        self.retries += 1

    def give_back(self, state: str, *, held: bool = False) -> None:
        self.priority = BEGUN
        self.lease_id = None
        if self.cancel:
            self.stop()
        else:
            self.state, self.held = state, held

    def stop(self) -> None:
        """End without its worker: what it measured last counts."""
        self.state, self.lease_id, self.backing_off, self.held = "stopped", None, False, False
        self.metrics = self.measured[max(self.measured)] if self.measured else None


@dataclass(slots=True, kw_only=True)
class StudyModel:
    """One study with its generator lease."""

    id: int
    name: str
    budget: int
    allowed_retries: int
    pauses: bool
    """Whether its stopping rule pauses trials."""
    state: str = "active"
    ended: bool = False
    search_ended: bool = False
    """From then on only what trains a configuration again begins."""
    trials: list[TrialModel] = field(default_factory=list)
    owner: str | None = None
    generation: int = 0
    owner_expired: bool = False

    @property
    def live(self) -> int:
        return sum(trial.state != "withdrawn" and trial.replicate_of is None for trial in self.trials)

    @property
    def alive(self) -> int:
        return sum(not trial.over for trial in self.trials)

    def may_suggest(self, owner: str, generation: int) -> bool:
        return (
            self.state == "active"
            and not self.search_ended
            and self.owner == owner
            and self.generation == generation
            and not self.owner_expired
        )

    def state_for(self, trial: TrialModel) -> str:
        """Return the state of the study as a worker hears it that reports on a trial."""
        return "stopped" if self.search_ended and trial.replicate_of is None else self.state

    def may_replicate(self, asked: TrialModel, next_number: int | None) -> bool:
        """Return whether the configuration of a trial is trained again under this number, the next one if None."""
        is_open = self.state in ("active", "paused")
        is_kept = asked.attempt > 0 and asked.state != "withdrawn"
        return is_open and is_kept and next_number in (None, len(self.trials))

    def next_claim(self) -> TrialModel | None:
        if self.state != "active":
            return None
        ready = [
            t
            for t in self.trials
            if t.state in ("suggested", "paused")
            and not t.backing_off
            and not t.held
            and (t.replicate_of is not None or not self.search_ended)
        ]
        return min(ready, key=lambda t: (-t.priority, t.id), default=None)

    @property
    def closing(self) -> list[TrialModel]:
        """The trials that withdrawing and closing are about: after the search alone, what is trained again goes on."""
        is_race = self.search_ended and self.state != "stopped"
        return [t for t in self.trials if t.replicate_of is None or not is_race]

    def withdraw(self) -> int:
        gone = [t for t in self.closing if t.state == "suggested" and t.attempt == 0]
        for trial in gone:
            trial.state = "withdrawn"
        return len(gone)

    def close(self) -> int:
        if self.state != "stopped" and not self.search_ended:
            return 0
        waiting = [t for t in self.closing if t.state == "paused" or (t.state == "suggested" and t.attempt > 0)]
        for trial in waiting:
            trial.stop()
        return len(waiting)

    def end_search(self) -> None:
        self.search_ended = True
        self.withdraw()
        self.close()

    def end_finished_studies(self) -> bool:
        """Return whether the study ends now."""
        if self.state == "stopped":
            self.withdraw()
            self.close()
        elif self.state == "active":
            for trial in self.trials:
                trial.held = False  # the rule of the test lets everything go on
        if self.ended or self.alive:
            return False
        if self.state == "stopped":
            self.ended = True
        elif self.live >= self.budget and not self.search_ended:  # finalists are trained until their race is over
            has_failed = any(trial.state == "failed" for trial in self.trials)
            self.state = "failed" if has_failed and not any(map(_has_result, self.trials)) else "completed"
            self.ended = True
        return self.ended


def _has_result(trial: TrialModel) -> bool:
    return trial.state == "completed" or (trial.state == "stopped" and bool(trial.measured))

"""Which weights of the trials of a study may go, and which somebody still needs. Nothing here touches a file.

What has not ended keeps everything: it may continue from any of its files. Of what has ended, the policy of the study
says which weights stay, except for what is needed in any case: the best configurations with all their trials, what was
trained again, and what was exported.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ..protocol import Keep
from ..spec import StudySpec
from ..spec.checkpoints import CheckpointPolicy
from ..spec.finalists import FinalistsConfig
from ..trial import RESULT_STATES, TrialRecord, TrialState
from .answer import Answer

_UNLIMITED: Final = CheckpointPolicy()
_OPEN: Final = {
    TrialState.SUGGESTED: "it waits for a worker",
    TrialState.RUNNING: "it runs",
    TrialState.PAUSED: "it is paused",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What stays of one trial, and why."""

    trial: TrialRecord
    keep: Keep
    reason: str
    """In a few words, after `kept:` or `removed:`."""
    is_needed: bool
    """Whether it stays whatever the policy says, its quota included."""


def needed(
    found: Answer | None,
    records: Iterable[TrialRecord],
    *,
    finalists: FinalistsConfig | None,
    exported: Collection[int] = (),
) -> dict[int, str]:
    """Return the numbers of the ended trials that somebody needs, with the reason.

    Args:
        found: the answer of the study, if it has one.
        records: all trials of the study.
        finalists: how the best configurations are trained again, if they are.
        exported: numbers of the trials that were exported.
    """
    reasons: dict[int, str] = {}
    for record in records:
        if record.replicate_of is not None and record.state in RESULT_STATES:
            reasons[record.replicate_of] = reasons[record.number] = "its configuration was trained again"
    if found is not None:
        reasons[found.luckiest] = "it has the highest value"
        leaders = found.candidates[: finalists.top] if finalists is not None else ()
        for candidate in leaders:
            reasons |= dict.fromkeys(candidate.trials, "its configuration is among the finalists")
        for candidate in (*found.front, found.winner):
            reasons |= dict.fromkeys(candidate.trials, "it is of the best configuration")
    return reasons | dict.fromkeys(exported, "it was exported")


def verdicts(spec: StudySpec, records: Iterable[TrialRecord], reasons: Mapping[int, str]) -> list[Verdict]:
    """Return what stays of each trial by the policy of the study, and of the `needed` ones in any case.

    `reasons` are those of `needed`. The quota is not applied: only who has the files knows how large they are.
    """
    policy = spec.checkpoints or _UNLIMITED
    return [_verdict(policy, record, reasons.get(record.number)) for record in records]


def worst_first(found: Answer | None, judged: Sequence[Verdict]) -> list[int]:
    """Return the ids of the ended trials that are not needed, in the order in which a quota removes their weights.

    Trials without a place in the answer, such as those that break a constraint, come first; of equals the later one.
    """
    places: dict[int, int] = {}
    for place, candidate in enumerate(found.candidates if found is not None else ()):
        places |= dict.fromkeys(candidate.trials, place)
    free = [one.trial for one in judged if one.trial.state.is_terminal and not one.is_needed]
    last = len(places)
    return [trial.id for trial in sorted(free, key=lambda trial: (-places.get(trial.number, last), -trial.number))]


def _verdict(policy: CheckpointPolicy, record: TrialRecord, reason: str | None) -> Verdict:
    if not record.state.is_terminal:
        return Verdict(trial=record, keep=Keep.ALL, reason=_OPEN[record.state], is_needed=True)
    if record.state not in RESULT_STATES:
        failed = "it failed" if record.state is TrialState.FAILED else "it was withdrawn"
        return Verdict(trial=record, keep=Keep.NOTHING, reason=failed, is_needed=False)
    if reason is not None:
        return Verdict(trial=record, keep=Keep.WEIGHTS, reason=reason, is_needed=True)
    if record.state is TrialState.STOPPED and not policy.stopped:
        return Verdict(trial=record, keep=Keep.NOTHING, reason="it was stopped", is_needed=False)
    keep = Keep.WEIGHTS if policy.last else Keep.FURTHER
    return Verdict(trial=record, keep=keep, reason="the policy of the study", is_needed=False)

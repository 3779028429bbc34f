"""The evidence for a configuration, as it is shown and exported."""

from __future__ import annotations

from ..results.evidence import Evidence
from .answer import Answer


def evidence_of_winner(found: Answer) -> Evidence:
    """Return the evidence for the best configuration."""
    return _evidence(found, 0)


def evidence_of(found: Answer, number: int) -> Evidence | None:
    """Return the evidence for the configuration of trial `number`; None where it is no candidate of the answer."""
    for place, candidate in enumerate(found.candidates):
        if number in candidate.trials:
            return _evidence(found, place)
    return None


def _evidence(found: Answer, place: int) -> Evidence:
    candidate = found.candidates[place]
    first = candidate.first
    return Evidence(
        metric=found.metric,
        observed=first.observed,
        believed=first.believed,
        sd=first.sd,
        clips=found.clips,
        validated_on="images" if found.of_images else "clips",
        trials=list(candidate.trials),
        rank=place + 1,
        configurations=len(found.candidates),
        expected=first.expected,
        expected_sd=first.expected_sd,
        probability_best=min(candidate.probability, 1.0),
        is_clear=place == 0 and found.is_clear,
        highest_observed=found.luckiest_value,
        highest_trial=found.luckiest,
    )

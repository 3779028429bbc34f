"""The trials of a study as another study learns from them: with the values that are expected of them on new data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..results.outcome import final_metrics
from ..spec import StudySpec
from ..trial import TrialRecord, TrialState
from .answer import answer


def as_expected(spec: StudySpec, earlier: StudySpec, records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the records of `earlier` with what the objectives of `spec` are expected to be, in their order.

    Of several trials of one configuration one is left. If the best configuration was stopped early, its trial counts as
    completed with the end that it is believed to have; others that were stopped stay as they are.
    """
    asked = earlier.model_copy(update={"objectives": spec.objectives, "constraints": spec.constraints})
    found = answer(asked, records)
    if found is None:
        return list(records)
    combined = {number for candidate in found.candidates for number in candidate.trials}
    kept = {record.number: record for record in records if record.number not in combined}
    by_number = {record.number: record for record in records}
    for candidate in found.candidates:
        record = by_number[candidate.chosen]
        if candidate.completed or candidate is found.winner:
            expected = {name: estimate.expected for name, estimate in candidate.estimates.items()}
            metrics = {**final_metrics(record), **expected}
            record = replace(record, state=TrialState.COMPLETED, metrics=metrics)
        kept[candidate.chosen] = record
    return [kept[record.number] for record in records if record.number in kept]

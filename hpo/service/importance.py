"""What matters most in a study, kept among its events, so that the API can show it without a model.

The optimizer process computes it where it has the models anyway: in studies of `ax`, each time some more trials have an
outcome and when the study has ended, and only when no suggestion is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import Connection, select

from ..errors import StoreUnavailableError
from ..optimizer.generator import GeneratorError
from ..optimizer.importance import LEAST_EXPLAINED, LEAST_OUTCOMES, Importance
from ..spec import StudySpec
from ..store import Database, earlier, events, trials
from ..store.studies import StudyRow
from ..store.tables import event
from ..trial import RESULT_STATES

logger = logging.getLogger(__name__)

IMPORTANCE: Final = "study.importance"
EVERY: Final = 10
"""It is computed again after so many more outcomes, and at the end."""
_NAMED: Final = 3
"""Parameters that the sentence names."""


class ImportanceKeeper:
    """Computes importances when they are due, and remembers with how many outcomes it did so last."""

    def __init__(self, database: Database, owner: str) -> None:
        self._database, self._owner = database, owner
        self._last: dict[int, int] = {}

    def keep(self, study: StudyRow) -> bool:
        """Record what matters in a study if that is due; return whether it was."""
        outcomes = sum(study.counts.get(state, 0) for state in RESULT_STATES)
        if study.spec.optimizer.name != "ax" or outcomes < LEAST_OUTCOMES:
            return False
        if study.id not in self._last:
            with self._database.transaction() as connection:
                known = last(connection, study.id)
            self._last[study.id] = 0 if known is None else int(known["outcomes"])
        new = outcomes - self._last[study.id]
        if new < (EVERY if study.is_searching else 1):
            return False
        before, self._last[study.id] = self._last[study.id], outcomes
        try:
            self._record(study, outcomes)
        except StoreUnavailableError:
            self._last[study.id] = before
            raise
        return True

    def _record(self, study: StudyRow, outcomes: int) -> None:
        with self._database.transaction() as connection:
            records = trials.records(connection, study.id)
            taken_over = earlier.read(connection, study.id) if study.spec.optimizer.warm_start else ()
        from ..optimizer.insight import Insight  # it imports torch, which this process has loaded for its proposals

        try:
            insight = Insight(study.spec, records, taken_over)
            found = {objective.metric: insight.importances(objective.metric) for objective in study.spec.objectives}
            explained = {metric: insight.explained(metric) for metric in found}
        except GeneratorError as error:
            logger.info("study %s: no importances: %s", study.name, error)
            return
        detail = {
            "outcomes": outcomes,
            "message": sentence(study.spec, found, explained),
            "explained": explained,
            "importances": {metric: [asdict(row) for row in rows] for metric, rows in found.items()},
        }
        with self._database.transaction() as connection:
            events.append(connection, study.id, None, IMPORTANCE, self._owner, detail)


def last(connection: Connection, study_id: int) -> Mapping[str, Any] | None:
    """Return the latest record of what matters in a study; None without one.

    It has `outcomes`, `message`, `importances`, and `explained`, which earlier releases did not compute.
    """
    found = connection.execute(
        select(event.c.detail)
        .where(event.c.study_id == study_id, event.c.kind == IMPORTANCE)
        .order_by(event.c.transaction_id.desc(), event.c.id.desc())
        .limit(1)
    ).scalar_one_or_none()
    return None if found is None else dict(found)


def sentence(spec: StudySpec, found: Mapping[str, Sequence[Importance]], explained: Mapping[str, float | None]) -> str:
    """Return what matters most for the first objective, such as `what matters most for val_top1: lr 62%, seed 2%`.

    Where the model knows next to nothing, that is said before; where the metric is the same in all trials, only that.
    """
    metric = spec.objectives[0].metric
    share = explained[metric]
    if share is None:
        return f"{metric} is the same in all trials"
    named = ", ".join(f"{row.parameter} {row.share:.0%}" for row in found[metric][:_NAMED])
    if share < LEAST_EXPLAINED:
        return f"the model explains next to nothing of {metric} yet; what seems to matter most: {named}"
    return f"what matters most for {metric}: {named}"

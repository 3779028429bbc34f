"""Whether the rows of a database agree with each other: what no constraint of one row can say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection, text

from ..errors import UnusableStudyError
from .migrate import head_revision
from .study_row import get_by_id

_RULES: Final = {
    "the number of its trials is not the one that it counts": """
        SELECT study.name, count(trial.id) AS found, study.next_number AS expected
        FROM study LEFT JOIN trial ON trial.study_id = study.id
        GROUP BY study.id HAVING count(trial.id) <> study.next_number""",
    "the trials that count against its budget are not those that it counts": """
        SELECT study.name, count(trial.id) AS found, study.live_trials AS expected
        FROM study LEFT JOIN trial
          ON trial.study_id = study.id AND trial.state <> 'withdrawn'
              AND trial.replicate_of IS NULL AND trial.origin IS NULL
        GROUP BY study.id HAVING count(trial.id) <> study.live_trials""",
    "the trials that have ended are not those that its totals count": """
        SELECT study.name, count(trial.id) AS found,
               COALESCE((SELECT sum(trials) FROM study_total WHERE study_id = study.id), 0) AS expected
        FROM study LEFT JOIN trial
          ON trial.study_id = study.id AND trial.finished_at IS NOT NULL AND trial.origin IS NULL
        GROUP BY study.id
        HAVING count(trial.id) <> COALESCE((SELECT sum(trials) FROM study_total WHERE study_id = study.id), 0)
            OR abs(COALESCE(sum(trial.gpu_seconds), 0)
                   - COALESCE((SELECT sum(gpu_seconds) FROM study_total WHERE study_id = study.id), 0))
               > 1e-6 * (1 + COALESCE(sum(trial.gpu_seconds), 0))""",
    "trials run without an attempt that does": """
        SELECT study.name, count(*) AS found, 0 AS expected
        FROM trial JOIN study ON study.id = trial.study_id
        WHERE trial.state = 'running'
          AND NOT EXISTS (SELECT FROM attempt WHERE attempt.trial_id = trial.id
                            AND attempt.attempt = trial.attempt AND attempt.ended_at IS NULL)
        GROUP BY study.id""",
    "attempts run of trials that do not": """
        SELECT study.name, count(*) AS found, 0 AS expected
        FROM attempt JOIN trial ON trial.id = attempt.trial_id JOIN study ON study.id = trial.study_id
        WHERE attempt.ended_at IS NULL AND (trial.state <> 'running' OR attempt.attempt <> trial.attempt)
        GROUP BY study.id""",
    "trials have more attempts than they count": """
        SELECT study.name, count(*) AS found, 0 AS expected
        FROM trial JOIN study ON study.id = trial.study_id
        WHERE trial.origin IS NULL
          AND ((SELECT max(attempt) FROM attempt WHERE attempt.trial_id = trial.id) > trial.attempt
           OR (SELECT max(attempt) FROM measurement WHERE measurement.trial_id = trial.id) > trial.attempt)
        GROUP BY study.id""",
    "the device time of trials is not that of their epochs": """
        SELECT study.name, count(*) AS found, 0 AS expected
        FROM trial JOIN study ON study.id = trial.study_id
        WHERE abs(trial.gpu_seconds - (SELECT COALESCE(sum(gpu_seconds), 0) FROM measurement
                                       WHERE measurement.trial_id = trial.id)) > 1e-6 * (1 + trial.gpu_seconds)
        GROUP BY study.id""",
    "trials have measured more epochs than they count": """
        SELECT study.name, count(*) AS found, 0 AS expected
        FROM trial JOIN study ON study.id = trial.study_id
        WHERE (SELECT max(step) FROM measurement WHERE measurement.trial_id = trial.id) > trial.epochs_done
        GROUP BY study.id""",
}


def problems(connection: Connection) -> Iterator[str]:
    """Yield a sentence for each thing that is wrong; none for a database that is as it should be."""
    revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    if revision != head_revision():
        yield f"its tables are of version {revision}, and this release needs {head_revision()}: run `hpo db upgrade`"
        return
    for sentence, query in _RULES.items():
        for row in connection.execute(text(query)):
            yield f"study {row.name}: {sentence} ({row.found}, expected {row.expected})"
    for study_id in connection.execute(text("SELECT id FROM study ORDER BY id")).scalars().all():
        try:
            get_by_id(connection, study_id)
        except UnusableStudyError as error:
            yield str(error)

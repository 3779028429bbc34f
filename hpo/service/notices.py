"""What a study should be told about itself as soon as it can be known, once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final

from sqlalchemy import Connection, select

from ..answer.estimates import CLIPS_METRIC, is_share
from ..answer.power import few_clips
from ..errors import DataNotSeenError, UnusableStudyError
from ..protocol import Measurement
from ..spec import StudySpec, VideoTask
from ..store import events, studies, waiting
from ..store.tables import event

log = logging.getLogger(__name__)

FEW_CLIPS: Final = "study.few_clips"
_ACTOR: Final = "validation"

ClipCount = Callable[[StudySpec], int | None]
"""Returns how many clips the trials of a study validate on, None where that is not known; raises DataNotSeenError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSeen:
    """What a machine sees of the data set of a study."""

    clips: int | None = None
    """How many clips the trials will validate on; None where that is not known."""
    problem: str | None = None
    """Why the data set cannot be read there; None where it can, or where that is not known."""


def seen(spec: StudySpec, count: ClipCount | None, *, seconds: float) -> DataSeen:
    """Return what this machine sees of the data set within `seconds`.

    The data set may be on a file system that does not answer, and creating a study must not wait for it. The first
    epoch of a trial says how many clips there are.
    """
    if count is None:
        return DataSeen()
    found: SimpleQueue[DataSeen] = SimpleQueue()

    def read() -> None:
        try:
            found.put(DataSeen(clips=count(spec)))
        except DataNotSeenError as error:
            found.put(DataSeen(problem=str(error)))
        except Exception:  # whatever it is, the study is created without this notice
            log.exception("the validation clips of study %s could not be counted", spec.name)
            found.put(DataSeen())

    threading.Thread(target=read, name="validation clips", daemon=True).start()
    try:
        return found.get(timeout=seconds)
    except Empty:
        return DataSeen()


def missing_data(connection: Connection, spec: StudySpec, found: DataSeen) -> str | None:
    """Return a sentence that the data set of a new study may be missing; None if it was seen, here or by a worker.

    It is a warning: the API may run on a machine without data.
    """
    if found.problem is None or not isinstance(spec.task, VideoTask):
        return None
    if waiting.is_trained_on(connection, str(spec.task.dataset.root)):
        return None
    return (
        f"the machine of the API does not see the data set ({found.problem}), and no live worker has trained on it: it "
        "must be at this place on the machines of workers; if none has it, the study is paused at its first trial"
    )


def note_clips(connection: Connection, study_id: int, spec: StudySpec, clips: int | None) -> None:
    """Record an event if so many validation clips are too few to compare configurations; nothing where it is known."""
    metric = spec.objectives[0].metric
    if (
        not clips
        or not is_share(spec, metric)
        or (sentence := few_clips(metric, clips, called=spec.task.validated_on)) is None
    ):
        return
    if few_clips_of(connection, study_id) is None:
        events.append(connection, study_id, None, FEW_CLIPS, _ACTOR, {"clips": clips, "message": sentence})


def note_few_clips(connection: Connection, study_id: int, measurements: Sequence[Measurement]) -> None:
    """Record an event if the first epoch of a trial was validated on too few clips to compare configurations.

    Later epochs, and later trials of the study, add nothing to it.
    """
    clips = next((round(found.metrics.get(CLIPS_METRIC, 0)) for found in measurements if found.step == 1), 0)
    if clips:
        with suppress(UnusableStudyError):  # what was measured counts nevertheless
            note_clips(connection, study_id, studies.outline_of(connection, study_id).spec, clips)


def few_clips_of(connection: Connection, study_id: int) -> str | None:
    """Return what the validation clips of a study cannot show, as a sentence; None where nothing is known of it."""
    query = select(event.c.detail).where(event.c.study_id == study_id, event.c.kind == FEW_CLIPS)
    first = query.order_by(event.c.transaction_id, event.c.id).limit(1)
    detail = connection.execute(first).scalar_one_or_none()
    return None if detail is None else str(detail["message"])

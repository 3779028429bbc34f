"""The process that scores one part of an evaluation on one device.

It is started as `python -P -c "from workers.evaluation.shard import main; main()" FD`, by `sharding`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import IO

from data import DatasetError
from hpo.errors import HpoError
from models import ModelError

from ..device.main_memory import let_kernel_end_this_first
from ..errors import EvaluationError
from .sealed_test import Evaluation, Views
from .shard_job import ORPHANED, ShardEvent, ShardJob
from .views import Share


def main() -> None:
    """Read the job, score, and write the scores."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the parent, which closes the input
    let_kernel_end_this_first()
    events = os.fdopen(int(sys.argv[1]), "w", encoding="utf-8")
    line = sys.stdin.readline()
    if not line:
        return
    threading.Thread(target=_end_with_parent, daemon=True).start()
    status = run(ShardJob.model_validate_json(line), events)
    sys.stderr.flush()
    os._exit(status)  # threads of libraries may keep a finished process alive


def run(job: ShardJob, events: IO[str]) -> int:
    """Score the part of a job and return the exit status of this process; every failure becomes a sentence."""

    def send(event: ShardEvent) -> None:
        events.write(event.model_dump_json() + "\n")
        events.flush()

    try:
        _score(job, send)
    except (HpoError, DatasetError, ModelError) as error:
        send(ShardEvent(error=str(error)))
        return 1
    except Exception as error:  # the boundary: whatever fails is told to the parent
        traceback.print_exc()
        first = (str(error).strip().splitlines() or [""])[0]
        send(ShardEvent(error=f"{type(error).__name__}: {first}"))
        return 1
    return 0


def _score(job: ShardJob, send: Callable[[ShardEvent], None]) -> None:
    evaluation = Evaluation.prepare(job.checkpoint, job.dataset, cache_dir=job.cache_dir, device=job.device)
    if evaluation.dataset.version != job.dataset_version:
        raise EvaluationError(
            f"{job.dataset.root} has changed since this evaluation began; start it again when nothing writes there"
        )
    scores = evaluation.share(
        Share(number=job.number, of=job.of),
        Views(clips=job.clips, crops=job.crops),
        opening=job.opening,
        progress=lambda done, total: send(ShardEvent(done=done, total=total)),
    )
    if scores is not None:
        with os.fdopen(job.result, "wb") as file:
            scores.save(file)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(ORPHANED)

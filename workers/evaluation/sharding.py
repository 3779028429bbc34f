"""Score videos on several devices at once, in one process for each, and put their scores together.

The parts are of whole batches in the order of the list, so that every batch is computed as by one process alone. The
measures are made of all scores in one place.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from pydantic import ValidationError

from data.specs import DatasetSpec
from hpo.installation import python_command

from ..device.detection import Device
from ..errors import EvaluationError
from .shard_job import ShardEvent, ShardJob
from .views import Progress, Scores

_CODE: Final = "from workers.evaluation.shard import main; main()"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharding:
    """What is scored, and on which devices: one process for each of them."""

    checkpoint: Path
    dataset: DatasetSpec
    dataset_version: str
    """That all processes must find."""
    cache_dir: Path
    devices: tuple[Device, ...]

    def scores(
        self,
        *,
        ids: Sequence[str],
        clips: int,
        crops: int,
        opening: str | None = None,
        progress: Progress | None = None,
    ) -> Scores:
        """Return the scores of the validation list, or of the test list that an opening on record has opened.

        Args:
            ids: of the videos of that list.

        Raises:
            EvaluationError: a process has failed or died, and the message names it, or they have scored other videos.
                The others are ended.
        """
        with contextlib.ExitStack() as started:
            shards = []
            for number, device in enumerate(self.devices):
                # Files without a name: nothing is left of them, however this process ends.
                log, result = (started.enter_context(tempfile.TemporaryFile()) for _ in range(2))
                job = ShardJob(
                    checkpoint=self.checkpoint.absolute(),
                    dataset=DatasetSpec.model_validate(self.dataset.model_dump(mode="json")),
                    dataset_version=self.dataset_version,
                    cache_dir=self.cache_dir.absolute(),
                    device=device,
                    clips=clips,
                    crops=crops,
                    number=number,
                    of=len(self.devices),
                    opening=opening,
                    result=result.fileno(),
                )
                shards.append(_Shard.start(job, log, result))
                started.callback(shards[-1].end)
            _follow(shards, progress)
            found = [scores for shard in shards if (scores := shard.scores()) is not None]
        return Scores.joined(found, ids=ids)


@dataclass(kw_only=True)
class _Shard:
    """One process."""

    job: ShardJob
    process: subprocess.Popen[str]
    events: IO[str]
    log: IO[bytes]
    result: IO[bytes]
    done: int = 0
    error: str | None = None
    listener: threading.Thread | None = field(default=None)

    @classmethod
    def start(cls, job: ShardJob, log: IO[bytes], result: IO[bytes]) -> _Shard:
        """Start the process and give it its job."""
        read, write = os.pipe()
        try:
            process = subprocess.Popen(
                python_command(_CODE, str(write)),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(write, job.result),
                env=job.device.environment(),
                text=True,
                encoding="utf-8",
            )
        except OSError as error:
            os.close(read)
            raise EvaluationError(f"no process can be started for {job.device.label} ({error.strerror})") from error
        finally:
            os.close(write)
        shard = cls(job=job, process=process, events=os.fdopen(read, encoding="utf-8"), log=log, result=result)
        with contextlib.suppress(BrokenPipeError):  # it has died: its listener says so
            assert process.stdin is not None  # noqa: S101 - it was started with a pipe
            process.stdin.write(job.model_dump_json() + "\n")
            process.stdin.flush()
        return shard

    def listen(self, heard: queue.SimpleQueue[tuple[_Shard, ShardEvent | int]]) -> None:
        """Put each event into a queue, and at last the exit status, from a thread."""

        def read() -> None:
            for line in self.events:
                with contextlib.suppress(ValidationError):  # a process that is killed leaves half a line
                    heard.put((self, ShardEvent.model_validate_json(line)))
            heard.put((self, self.process.wait()))

        self.listener = threading.Thread(target=read, daemon=True)
        self.listener.start()

    def failure(self, status: int) -> str | None:
        """Return what is wrong with a process that has ended; None if nothing is."""
        if status == 0:
            return None
        who = f"part {self.job.number + 1} of {self.job.of} on {self.job.device.label}"
        if self.error is not None:
            return f"{who} could not be scored: {self.error}"
        if status < 0:
            name = signal.Signals(-status).name
            return f"the process {self.process.pid} that scored {who} was killed by {name}; start the evaluation again"
        self.log.seek(0)
        said = self.log.read().decode("utf-8", errors="replace").strip().splitlines()
        last = said[-1] if said else "nothing"
        return f"the process {self.process.pid} that scored {who} ended with status {status}; it printed: {last}"

    def scores(self) -> Scores | None:
        """Return the scores of a process that is done; None where its part has no videos."""
        is_empty = self.result.seek(0, os.SEEK_END) == 0
        self.result.seek(0)
        return None if is_empty else Scores.load(self.result)

    def end(self) -> None:
        """End the process, if it still runs."""
        self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        if self.listener is not None:
            self.listener.join()
        self.events.close()


def _follow(shards: Sequence[_Shard], progress: Progress | None) -> None:
    """Return when all processes are done.

    Raises:
        EvaluationError: one of them has failed.
    """
    heard: queue.SimpleQueue[tuple[_Shard, ShardEvent | int]] = queue.SimpleQueue()
    for shard in shards:
        shard.listen(heard)
    left = len(shards)
    while left:
        shard, event = heard.get()
        if isinstance(event, int):
            left -= 1
            if (failure := shard.failure(event)) is not None:
                raise EvaluationError(failure)
            continue
        shard.error, shard.done = event.error, max(shard.done, event.done)
        if progress is not None and event.total:
            progress(sum(one.done for one in shards), event.total)

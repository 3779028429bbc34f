"""An evaluation on several devices: the scores of one process, one opening, and a sentence when a process dies."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

from data import Dataset
from hpo.installation import python_command
from workers.device.detection import cpu_device
from workers.errors import EvaluationError
from workers.evaluation import shard, sharding
from workers.evaluation.sealed_test import Evaluation, Opening, Views
from workers.evaluation.shard_job import ORPHANED, ShardEvent, ShardJob
from workers.evaluation.sharding import Sharding
from workers.evaluation.views import Scores, Share
from workers.training.reproducibility import Runtime
from workers.training.trainer import Trainer

from ..tiny import tiny_config, tiny_task
from .test_sealed_test import saved

CPU = cpu_device(threads=1)


@pytest.fixture
def checkpoint(dataset: Dataset, runtime: Runtime, tmp_path: Path) -> Path:
    """The final file of a model with random weights."""
    return saved(tmp_path, Trainer(tiny_config(), epochs=1, dataset=dataset, runtime=runtime))


def _same(one: Scores, other: Scores) -> bool:
    named = (one.class_names, one.ids, one.groups) == (other.class_names, other.ids, other.groups)
    return named and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("labels", "clips", "frames")
    )


@pytest.mark.slow  # PyTorch is imported twice
def test_two_processes_say_what_one_says_and_open_the_seal_once(checkpoint: Path, videos: Path, tmp_path: Path) -> None:
    task, cache, views = tiny_task(videos).dataset, tmp_path / "cache", Views(clips=2, crops=1)
    alone = Evaluation.prepare(checkpoint, task, cache_dir=cache, device=CPU)
    expected = alone.test(Opening(reason="one process"), views)
    progress: list[tuple[int, int]] = []
    two = Evaluation.prepare(checkpoint, task, cache_dir=cache, device=(CPU, CPU))
    found = two.test(Opening(reason="two"), views, progress=lambda done, total: progress.append((done, total)))
    assert _same(found, expected)
    assert progress[-1] == (8, 8)
    openings = [json.loads(line)["reason"] for line in (cache / "unsealed.jsonl").read_text().splitlines()]
    assert openings == ["one process", "two"]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shares_of_whole_batches_make_the_whole(checkpoint: Path, videos: Path, cache_dir: Path, count: int) -> None:
    test = Evaluation.prepare(checkpoint, tiny_task(videos).dataset, cache_dir=cache_dir, device=CPU)
    views = Views(clips=4)  # one video fills a batch
    parts = [test.share(Share(number=n, of=count), views, opening=None, progress=None) for n in range(count)]
    assert (None in parts) == (count > 4)
    found, whole = [part for part in parts if part is not None], test.validation(views)
    assert _same(Scores.joined(found, ids=whole.ids), whole)


def test_a_process_leaves_the_scores_of_its_share(checkpoint: Path, videos: Path, cache_dir: Path) -> None:
    test = Evaluation.prepare(checkpoint, tiny_task(videos).dataset, cache_dir=cache_dir, device=CPU)
    events = io.StringIO()
    with tempfile.TemporaryFile() as file:
        job = _job(checkpoint, videos, cache_dir, result=os.dup(file.fileno()), version=test.dataset.version)
        assert shard.run(job, events) == 0
        file.seek(0)
        found = Scores.load(file)
    share = test.share(Share(number=1, of=2), Views(clips=2), opening=None, progress=None)
    assert share is not None
    assert _same(found, share)
    assert ShardEvent.model_validate_json(events.getvalue().splitlines()[-1]).done == len(share.ids) == 2


def _job(
    checkpoint: Path, videos: Path, cache_dir: Path, *, result: int, version: str, opening: str | None = None
) -> ShardJob:
    return ShardJob(
        checkpoint=checkpoint,
        dataset=tiny_task(videos).dataset,
        dataset_version=version,
        cache_dir=cache_dir,
        device=CPU,
        clips=2,
        crops=1,
        number=1,
        of=2,
        opening=opening,
        result=result,
    )


@pytest.mark.parametrize(
    "case",
    [
        ("sealed", "has no opening never: it is sealed"),
        ("no file", "cannot be read"),
        ("other data set", "has changed since this evaluation began"),
    ],
    ids=lambda case: case[0],
)
def test_a_process_says_why_it_has_no_scores(
    checkpoint: Path, videos: Path, dataset: Dataset, cache_dir: Path, case: tuple[str, str]
) -> None:
    what, words = case
    if what == "no file":
        checkpoint.unlink()
    version = "of before" if what == "other data set" else dataset.version
    events = io.StringIO()
    with tempfile.TemporaryFile() as file:
        job = _job(checkpoint, videos, cache_dir, result=file.fileno(), version=version, opening="never")
        assert shard.run(job, events) == 1
        assert file.seek(0, os.SEEK_END) == 0
    (event,) = map(ShardEvent.model_validate_json, events.getvalue().splitlines())
    assert words in str(event.error)


def test_a_video_that_is_scored_twice_and_one_that_is_lost_are_noticed(
    checkpoint: Path, videos: Path, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, views = tiny_task(videos).dataset, Views(clips=4)
    alone = Evaluation.prepare(checkpoint, task, cache_dir=cache_dir, device=CPU)
    share = alone.share(Share(number=0, of=2), views, opening=None, progress=None)
    assert share is not None
    with (tmp_path / "part.npz").open("wb") as file:
        share.save(file)
    code = "import json, os, sys; job = json.loads(sys.stdin.readline()); "
    code += f"os.write(job['result'], open({str(tmp_path / 'part.npz')!r}, 'rb').read())"
    monkeypatch.setattr(sharding, "_CODE", code)
    two = Evaluation.prepare(checkpoint, task, cache_dir=cache_dir, device=(CPU, CPU))
    with pytest.raises(EvaluationError, match="have 4 videos, which are not the 4 of the list"):
        two.validation(views)


def test_no_file_has_a_name_that_would_be_left_behind(
    checkpoint: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    code = f"import os, sys; sys.stdin.readline(); print('found', os.listdir({str(folder)!r})); raise SystemExit(4)"
    monkeypatch.setattr(sharding, "_CODE", code)
    with pytest.raises(EvaluationError, match=r"printed: found \[\]"):
        _sharding(checkpoint, videos, tmp_path).scores(ids=(), clips=1, crops=1)


@pytest.mark.slow  # PyTorch is imported
def test_a_process_ends_with_its_parent(checkpoint: Path, videos: Path, dataset: Dataset, cache_dir: Path) -> None:
    with tempfile.TemporaryFile() as file:
        job = _job(checkpoint, videos, cache_dir, result=file.fileno(), version=dataset.version)
        process = subprocess.run(
            python_command(sharding._CODE, "1"),
            input=job.model_dump_json() + "\n",  # closed after that, as when a parent is killed
            pass_fds=(job.result,),
            env=CPU.environment(),
            text=True,
            check=False,
        )
    assert process.returncode == ORPHANED


def _sharding(checkpoint: Path, videos: Path, cache_dir: Path) -> Sharding:
    dataset = tiny_task(videos).dataset
    return Sharding(
        checkpoint=checkpoint, dataset=dataset, dataset_version="v", cache_dir=cache_dir, devices=(CPU, CPU)
    )


@pytest.mark.parametrize(
    "death",
    [
        ("import os; os.kill(os.getpid(), 9)", r"the process \d+ that scored part 1 of 2 on cpu was killed by SIGKILL"),
        ("print('no such thing'); raise SystemExit(4)", r"ended with status 4; it printed: no such thing"),
        (
            'import os, sys; os.write(int(sys.argv[1]), b\'{"error": "it is full"}\\n\'); raise SystemExit(1)',
            "part 1 of 2 on cpu could not be scored: it is full",
        ),
    ],
    ids=["killed", "ended", "told"],
)
def test_a_process_that_dies_is_named_and_the_others_end(
    checkpoint: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, death: tuple[str, str]
) -> None:
    code, words = death
    only_the_first = f"import sys, json\nif json.loads(sys.stdin.readline())['number']: sys.stdin.read()\n{code}"
    monkeypatch.setattr(sharding, "_CODE", only_the_first)
    with pytest.raises(EvaluationError, match=words):
        _sharding(checkpoint, videos, tmp_path).scores(ids=(), clips=1, crops=1)

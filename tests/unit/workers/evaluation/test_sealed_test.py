"""The score on the sealed test list, against sums over the views of every video."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from data import ClipBatch, Dataset, DatasetSpec, open_dataset
from hpo.errors import SetupError
from workers.checkpoints.contents import writer
from workers.checkpoints.folder import TrialFolder
from workers.device.detection import Device, cpu_device
from workers.errors import CheckpointError
from workers.evaluation import model, runtime, views
from workers.evaluation.measures import measure
from workers.evaluation.sealed_test import Evaluation, Opening, Views
from workers.evaluation.views import Scores
from workers.training.inputs import clip_spec
from workers.training.memory_plan import MemoryPlan
from workers.training.reproducibility import Runtime
from workers.training.scoring import logits_of, score
from workers.training.trainer import Trainer, final_state

from ..tiny import tiny_config, tiny_task

CPU = cpu_device(threads=1)
TEST_VIDEOS = 8


@pytest.fixture
def trainer(dataset: Dataset, runtime: Runtime) -> Trainer:
    """A fresh model: its weights are random."""
    return Trainer(tiny_config(), epochs=1, dataset=dataset, runtime=runtime)


def saved(folder: Path, trainer: Trainer, **changes: Any) -> Path:
    """Return the final file of a trainer."""
    state = {**final_state(trainer.state()), **changes}
    return TrialFolder(folder, attempt=1).write_final(writer(state))


@pytest.fixture
def checkpoint(trainer: Trainer, tmp_path: Path) -> Path:
    """The final file of that model."""
    return saved(tmp_path, trainer)


@pytest.fixture
def own_cache(tmp_path: Path) -> Path:
    """A cache with a record of openings of its own."""
    return tmp_path / "cache"


def prepared(checkpoint: Path, videos: Path, cache_dir: Path) -> Evaluation:
    return Evaluation.prepare(checkpoint, tiny_task(videos).dataset, cache_dir=cache_dir, device=CPU)


def evaluated(
    checkpoint: Path, videos: Path, cache_dir: Path, *, reason: str = "a test", progress: Any = None, **seen: int
) -> Scores:
    opening = Opening(reason=reason, about={"id": "1"})
    return prepared(checkpoint, videos, cache_dir).test(
        opening, Views(**{"clips": 2, "crops": 3, **seen}), progress=progress
    )


def test_the_score_is_that_of_the_mean_probability_of_the_views(
    trainer: Trainer, checkpoint: Path, videos: Path, own_cache: Path
) -> None:
    progress: list[tuple[int, int]] = []
    found = evaluated(checkpoint, videos, own_cache, progress=lambda done, total: progress.append((done, total)))
    trainer.model.eval()
    opened = open_dataset(tiny_task(videos).dataset, cache_dir=own_cache)
    loader = opened.test_loader(reason="check", clip=clip_spec(trainer.config), batch_size=6, views=2, crops=3)
    for number, batch in enumerate(loader):
        assert isinstance(batch.clips, torch.Tensor)
        with torch.no_grad():
            every = trainer.model(batch.clips).softmax(1)
        assert found.ids[number : number + 1] == batch.ids
        assert found.labels[number] == batch.labels[0]
        torch.testing.assert_close(torch.from_numpy(found.clips[number]), every.view(2, 3, 2).mean(1))
        torch.testing.assert_close(torch.from_numpy(found.videos[number]), every.mean(0).double())
    assert found.clips.shape == (TEST_VIDEOS, 2, 2)
    assert found.class_names == opened.class_names
    groups = {clip.id: clip.group for clip in opened.index.clips}
    assert found.groups == tuple(groups[id_] for id_ in found.ids)
    assert progress == [(done, TEST_VIDEOS) for done in range(1, TEST_VIDEOS + 1)]  # the views of one fill a batch


def test_each_clip_says_which_frames_it_shows(checkpoint: Path, videos: Path, cache_dir: Path) -> None:
    test = prepared(checkpoint, videos, cache_dir)
    found = test.test(Opening(reason="a test"), Views(clips=3, crops=3))
    for id_, frames in zip(found.ids, found.frames, strict=True):
        length = test.dataset.stores["rgb"].shape(id_)[0]
        assert frames.tolist() == [[start, start + 7] for start in (0, round((length - 8) / 2), length - 8)]


def test_the_validation_list_is_scored_without_a_seal(
    trainer: Trainer, checkpoint: Path, videos: Path, own_cache: Path
) -> None:
    test = prepared(checkpoint, videos, own_cache)
    found = test.validation(Views(clips=1))
    loader = test.dataset.validation_loader(clip=clip_spec(trainer.config), batch_size=4)
    expected = score(trainer.model, loader, device=torch.device("cpu"), precision=test.model.precision)
    assert (measure(found).top1, len(found.ids)) == (expected.top1, expected.videos)
    assert not (own_cache / "unsealed.jsonl").exists()


def test_progress_counts_the_videos_of_a_batch(checkpoint: Path, videos: Path, cache_dir: Path) -> None:
    progress: list[tuple[int, int]] = []
    evaluated(
        checkpoint, videos, cache_dir, clips=1, crops=1, progress=lambda done, total: progress.append((done, total))
    )
    assert progress == [(4, TEST_VIDEOS), (8, TEST_VIDEOS)]


def test_the_weights_of_the_checkpoint_are_scored_on_all_views(
    trainer: Trainer, checkpoint: Path, videos: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[dict[str, torch.Tensor]] = []
    seen: list[int] = []

    def see(module: torch.nn.Module, batch: ClipBatch, **options: Any) -> torch.Tensor:
        scored.append(module.state_dict())
        seen.append(batch.views)
        assert options["most_clips"] == trainer.config.batch_size  # more do not fit where the model was trained
        return logits_of(module, batch, **options)

    monkeypatch.setattr(views, "logits_of", see)
    torch.manual_seed(99)  # a model that is built now has other weights
    evaluated(checkpoint, videos, cache_dir)
    expected = trainer.model.state_dict()
    assert all(torch.equal(scored[0][name], value) for name, value in expected.items())
    assert set(seen) == {2 * 3}


def test_breaking_the_seal_is_recorded_with_its_reason(checkpoint: Path, videos: Path, own_cache: Path) -> None:
    evaluated(checkpoint, videos, own_cache, reason="the last word")
    (line,) = (own_cache / "unsealed.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert (entry["reason"], entry["clips"]) == ("the last word", TEST_VIDEOS)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        b"PK\x03\x04 cut short",
        pickle.dumps({"format": 1, "model": print}),
        {"format": 1},
        {"format": 1, "config": 3, "class_names": None, "dataset_version": [], "model": "weights"},
        {"format": 1, "config": {"lr": "no"}, "class_names": [], "dataset_version": "v", "model": {}},
        [1, 2],
        7,
    ],
    ids=["empty", "text", "zip", "code", "no parts", "other kinds", "configuration", "list", "number"],
)
def test_a_file_that_is_not_a_checkpoint_of_ours_is_a_sentence(
    tmp_path: Path, videos: Path, own_cache: Path, content: object
) -> None:
    path = tmp_path / "best.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"best\.pt") as caught:
        evaluated(path, videos, own_cache)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", [{}, {"weight": 3}, {1: torch.ones(1)}])
def test_other_weights_than_those_of_the_model_are_a_sentence(
    trainer: Trainer, tmp_path: Path, videos: Path, own_cache: Path, model: dict[Any, Any]
) -> None:
    path = saved(tmp_path, trainer, model=model)
    with pytest.raises(CheckpointError, match="does not have the weights of the model that it names"):
        evaluated(path, videos, own_cache)


def test_weights_for_other_classes_are_refused_and_the_seal_holds(
    trainer: Trainer, videos: Path, own_cache: Path, tmp_path: Path
) -> None:
    other = saved(tmp_path, trainer, class_names=["SlideRight", "SlideLeft"])
    with pytest.raises(CheckpointError, match=r"was trained for other classes \(2\) than .* has \(2\)"):
        evaluated(other, videos, own_cache)
    assert not (own_cache / "unsealed.jsonl").exists()


def test_a_data_set_that_changed_since_is_reported(
    trainer: Trainer, videos: Path, cache_dir: Path, tmp_path: Path
) -> None:
    assert not prepared(saved(tmp_path, trainer, dataset_version="before"), videos, cache_dir).same_dataset
    assert prepared(saved(tmp_path / "same", trainer), videos, cache_dir).same_dataset


class _PreparedError(Exception):
    """Ends an evaluation where its process has been set up."""


class Cuda:
    """`torch.cuda` of a process that sees four GPUs; nothing runs on them."""

    uuids = ("GPU-a", "GPU-b", "GPU-c", "GPU-d")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, started: bool) -> None:
        self.current: list[int] = []
        self.runtimes: list[Runtime] = []
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
        monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: started)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(self.uuids))
        monkeypatch.setattr(torch.cuda, "set_device", self.current.append)
        monkeypatch.setattr(runtime, "gpu_uuid", lambda index: self.uuids[index])
        monkeypatch.setattr(model, "prepare", self._prepare)

    def _prepare(self, runtime: Runtime) -> None:
        self.runtimes.append(runtime)
        raise _PreparedError


def _evaluate(checkpoint: Path, videos: Path, cache_dir: Path, device: Device) -> None:
    Evaluation.prepare(checkpoint, DatasetSpec(root=str(videos)), cache_dir=cache_dir, device=device)


@pytest.mark.parametrize("started", [False, True])
def test_each_gpu_of_one_process_is_the_one_asked_for(
    checkpoint: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: bool
) -> None:
    cuda = Cuda(monkeypatch, started=started)
    for uuid in ("GPU-d", "GPU-b"):
        gpu = Device(kind="cuda", label="cuda:0", threads=5, uuid=uuid, bf16=True, fp16=True, deterministic=True)
        with pytest.raises(_PreparedError):
            _evaluate(checkpoint, videos, tmp_path, gpu)
    assert [runtime.device for runtime in cuda.runtimes] == [torch.device("cuda", 3), torch.device("cuda", 1)]
    assert cuda.current == [3, 1]
    assert cuda.runtimes[0] == Runtime(
        device=torch.device("cuda", 3), threads=5, bf16=True, fp16=True, deterministic=True
    )
    assert os.environ["CUDA_DEVICE_ORDER"] == ("FASTEST_FIRST" if started else "PCI_BUS_ID")


def test_a_gpu_that_the_process_does_not_see_is_refused(
    checkpoint: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Cuda(monkeypatch, started=True)
    gpu = Device(kind="cuda", label="cuda:5", threads=1, uuid="GPU-e")
    with pytest.raises(SetupError, match="this process does not see cuda:5; evaluate in a new process"):
        _evaluate(checkpoint, videos, tmp_path, gpu)


def test_a_part_of_a_gpu_is_the_only_device_that_the_process_sees(
    checkpoint: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = Cuda(monkeypatch, started=False)
    gpu = Device(kind="cuda", label="cuda:1", threads=1, uuid="MIG-b", visible="MIG-b")
    with pytest.raises(_PreparedError):
        _evaluate(checkpoint, videos, tmp_path, gpu)
    assert cuda.runtimes[0].device == torch.device("cuda")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "MIG-b"


@pytest.fixture
def averaged(dataset: Dataset, runtime: Runtime) -> Trainer:
    """A trained model whose evaluated tensors are others than those of training."""
    trainer = Trainer(tiny_config(precise_bn=True, ema=0.5), epochs=1, dataset=dataset, runtime=runtime)
    trainer.run(interrupted=lambda: False, epoch_done=lambda _: None)
    return trainer


def test_a_resume_point_is_scored_with_what_was_validated(
    averaged: Trainer, videos: Path, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = TrialFolder(tmp_path, attempt=1).write_resume_point(writer(averaged.state()), epoch=1, batch=0)
    scored: list[dict[str, torch.Tensor]] = []

    def see(module: torch.nn.Module, batch: ClipBatch, **_: object) -> torch.Tensor:
        scored.append({name: value.clone() for name, value in module.state_dict().items()})
        return torch.zeros(len(batch.ids) * batch.views, 2)

    monkeypatch.setattr(views, "logits_of", see)
    evaluated(point, videos, cache_dir)
    with averaged.evaluated_model():
        expected = averaged.model.state_dict()
        assert all(torch.equal(scored[0][name], value) for name, value in expected.items())
    assert not torch.equal(scored[0]["head.weight"], averaged.model.get_classifier().weight)


@pytest.mark.parametrize(("evaluation_batch", "at_once"), [(3, 3), (64, 8)])
def test_no_more_clips_are_computed_at_once_than_fitted_in_training(evaluation_batch: int, at_once: int) -> None:
    plan = MemoryPlan(batch_size=8, micro_batch=8, evaluation_batch=evaluation_batch)
    config = tiny_config(batch_size=8)
    assert model._clips_at_once({"memory_plan": plan.to_state()}, config) == at_once
    assert model._clips_at_once({}, config) == 8  # of an earlier release

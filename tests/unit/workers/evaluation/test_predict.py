"""Predictions of files: those of an evaluation, a time line without gaps, and copies that play."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from data import Dataset, FlowError, VideoError, open_dataset
from data.arrays import ByteArray
from data.flow.compute import flow_method
from data.reading.video import decode_frames, video_length
from hpo.spec import TrainingConfig
from workers.checkpoints.contents import writer
from workers.device.detection import cpu_device
from workers.errors import CheckpointError
from workers.evaluation.annotate import write_annotated
from workers.evaluation.model import TrainedModel
from workers.evaluation.predict import Predictor, _Clip, _joined
from workers.evaluation.sealed_test import Evaluation, Views
from workers.training.reproducibility import Runtime
from workers.training.trainer import Trainer, final_state

from ..tiny import tiny_config, tiny_task

CPU = cpu_device(threads=1)


@pytest.fixture
def checkpoint(dataset: Dataset, runtime: Runtime, tmp_path: Path) -> Path:
    """A model with random weights."""
    trainer = Trainer(tiny_config(), epochs=1, dataset=dataset, runtime=runtime)
    path = tmp_path / "model.pt"
    with path.open("wb") as file:
        writer(final_state(trainer.state()))(file)
    return path


@pytest.fixture
def model(checkpoint: Path) -> TrainedModel:
    """The same, opened."""
    return TrainedModel.open(checkpoint, CPU)


def write_video(path: Path, frames: list[ByteArray], fps: int = 10) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def noise(count: int, *, height: int = 36, width: int = 48, seed: int = 0) -> list[ByteArray]:
    draws = np.random.default_rng(seed)
    return [draws.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


@pytest.mark.parametrize("crops", [1, 3])
def test_a_video_is_scored_as_in_an_evaluation(
    checkpoint: Path, model: TrainedModel, videos: Path, cache_dir: Path, crops: int
) -> None:
    views, task = Views(clips=3, crops=crops), tiny_task(videos)
    evaluation = Evaluation.prepare(checkpoint, task.dataset, cache_dir=cache_dir, device=CPU)
    expected = evaluation.validation(views)
    predictor = Predictor.of(model, short_side=task.dataset.short_side, views=views)
    records = {clip.id: clip for clip in evaluation.dataset.index.clips}
    for id_, scores in zip(expected.ids, expected.videos, strict=True):
        found = predictor.predict(videos / records[id_].path)
        # Prepared frames are stored with half the colour, those of a file are not.
        np.testing.assert_allclose(found.scores, scores, atol=0.02)
        timed = predictor.predict(videos / records[id_].path, timeline=True)
        np.testing.assert_array_equal(timed.scores, found.scores)


def test_a_time_line_has_no_gaps_and_says_what_windows_say(model: TrainedModel, tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", noise(50))
    predictor = Predictor.of(model, short_side=32, views=Views(clips=2))
    found = predictor.predict(path, timeline=True)
    assert (found.frames, found.fps, found.seconds) == (50, 10.0, 5.0)
    starts = [segment.start for segment in found.timeline]
    ends = [segment.end for segment in found.timeline]
    assert (starts[0], ends[-1]) == (0.0, 5.0)
    assert starts[1:] == ends[:-1]
    labels = [segment.label for segment in found.timeline]
    assert all(one != other for one, other in pairwise(labels))
    frames = list(decode_frames(path, short_side=32))
    alone = predictor._forward([_Clip(frames=frames[:8])])[0]
    assert labels[0] == model.class_names[int(alone.argmax())]


def test_a_time_line_holds_one_window_and_the_clips_of_a_batch(model: TrainedModel) -> None:
    class Frame(np.ndarray):
        pass

    seen: list[weakref.ref[Frame]] = []
    most = 0

    def passing() -> Iterator[ByteArray]:
        nonlocal most
        for frame in noise(400, height=24, width=24):
            one = frame.view(Frame)
            seen.append(weakref.ref(one))
            most = max(most, sum(known() is not None for known in seen))
            yield one

    window = 100
    predictor = Predictor.of(replace(model, most_clips=4), short_side=24, views=Views(clips=1), window_seconds=4.0)
    assert len(list(predictor._timeline(passing(), 25.0))) == 4
    assert most <= 2 * window + 4 * predictor.clip.frames + 2


def test_equal_neighbours_are_one_stretch() -> None:
    windows = [(0.0, 1.0, [0.9, 0.1]), (1.0, 2.0, [0.7, 0.3]), (2.0, 3.0, [0.2, 0.8]), (3.0, 3.5, [0.6, 0.4])]
    found = list(_joined([(a, b, np.array(c, np.float32)) for a, b, c in windows], ("walk", "run"), 3.75))
    assert [(one.start, one.end, one.label) for one in found] == [
        (0.0, 2.0, "walk"),
        (2.0, 3.0, "run"),
        (3.0, 3.75, "walk"),
    ]
    assert [one.score for one in found] == pytest.approx([0.8, 0.8, 0.6])


@pytest.mark.parametrize("count", [1, 3, 8, 9])
def test_videos_shorter_than_a_clip_are_predicted(model: TrainedModel, tmp_path: Path, count: int) -> None:
    path = write_video(tmp_path / "v.mp4", noise(count))
    found = Predictor.of(model, short_side=32, views=Views(clips=2)).predict(path, timeline=True)
    assert found.scores.sum() == pytest.approx(1, abs=1e-5)
    assert found.timeline[-1].end == pytest.approx(count / 10)


def test_frames_of_which_a_data_set_keeps_some_are_seen_so(model: TrainedModel, tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", noise(64))
    views = Views(clips=1)
    kept = Predictor.of(model, short_side=32, views=views, most_frames=8).predict(path)
    frames = list(decode_frames(path, short_side=32))
    expected = Predictor.of(model, short_side=32, views=views)._forward([_Clip(frames=frames[4::8])])[0]
    np.testing.assert_allclose(kept.scores, expected, atol=1e-6)


def test_what_is_no_video_is_a_sentence(model: TrainedModel, tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"no video")
    with pytest.raises(VideoError, match=r"v\.mp4 cannot be opened as a video"):
        Predictor.of(model, short_side=32, views=Views()).predict(tmp_path / "v.mp4")


SEE_FLOW: dict[str, dict[str, Any]] = {
    "flow": {"clip.modality": "flow", "clip.flow_pairs": 3},
    "two-stream": {
        "model": "two_stream_resnet18",
        "model.width": 8,
        "model.flow_channels": 6,
        "clip.frames": 2,
        "clip.size": 32,
    },
}


def _sees_flow(folder: Path, dataset: Dataset, runtime: Runtime, kind: str) -> Path:
    """Return the checkpoint of a model with random weights that sees flow."""
    changes = SEE_FLOW[kind]
    known = {**tiny_config().to_flat(), **changes}
    other = {name: value for name, value in known.items() if not name.startswith("model.") or name in changes}
    config = TrainingConfig.from_flat(other if "model" in changes else known)
    path = folder / "flow.pt"
    with path.open("wb") as file:
        writer(final_state(Trainer(config, epochs=1, dataset=dataset, runtime=runtime).state()))(file)
    return path


@pytest.mark.parametrize("case", [("flow", "all"), ("flow", "uniform:6"), ("two-stream", "all")])
def test_a_model_of_flow_sees_the_flow_of_its_data_set(
    videos: Path, cache_dir: Path, runtime: Runtime, tmp_path: Path, case: tuple[str, str]
) -> None:
    kind, kept = case
    spec = tiny_task(videos).dataset.model_copy(update={"flow": "dis", "frames_kept": kept})
    checkpoint = _sees_flow(tmp_path, open_dataset(spec, cache_dir=cache_dir), runtime, kind)
    views = Views(clips=2, crops=3)
    evaluation = Evaluation.prepare(checkpoint, spec, cache_dir=cache_dir, device=CPU)
    expected = evaluation.validation(views)
    predictor = Predictor.of(
        TrainedModel.open(checkpoint, CPU),
        short_side=spec.short_side,
        views=views,
        most_frames=spec.most_frames,
        flow=flow_method("dis"),
    )
    records = {clip.id: clip for clip in evaluation.dataset.index.clips}
    for id_, scores in zip(expected.ids, expected.videos, strict=True):
        found = predictor.predict(videos / records[id_].path, timeline=True)
        np.testing.assert_allclose(found.scores, scores, atol=0.02 if kind == "two-stream" else 1e-3)
        assert found.timeline[-1].end == pytest.approx(found.seconds)


def test_a_model_of_flow_needs_a_method_and_two_frames(dataset: Dataset, runtime: Runtime, tmp_path: Path) -> None:
    spec = dataset.spec.model_copy(update={"flow": "dis"})
    opened = open_dataset(spec, cache_dir=dataset.seal.path.parent)
    model = TrainedModel.open(_sees_flow(tmp_path, opened, runtime, "flow"), CPU)
    with pytest.raises(CheckpointError, match=r"--flow dis, farneback or tvl1"):
        Predictor.of(model, short_side=32, views=Views())
    predictor = Predictor.of(model, short_side=32, views=Views(clips=1), flow=flow_method("dis"))
    with pytest.raises(FlowError, match="one frame and so no optical flow"):
        predictor.predict(write_video(tmp_path / "v.mp4", noise(1)))


def test_a_copy_plays_as_long_and_has_the_class_on_it(
    model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "v.mp4", [np.full((91, 121, 3), 200, np.uint8)] * 30)
    found = Predictor.of(model, short_side=32, views=Views(clips=1)).predict(path, timeline=True)
    copy = write_annotated(found, tmp_path / "copies")
    assert copy == tmp_path / "copies" / "v.classes.mp4"
    assert video_length(copy) == video_length(path)
    first = next(decode_frames(copy))
    assert first.shape[:2] == (90, 120)
    assert first[:12].min() < 90, "shade, and letters on it"
    assert first[40:80].min() > 170, "the picture below is as it was"
    monkeypatch.chdir(tmp_path)
    assert write_annotated(found, Path(), name="pipe:1") == Path("pipe:1.classes.mp4")
    assert video_length(tmp_path / "pipe:1.classes.mp4") == video_length(path), "a file, whatever its name"

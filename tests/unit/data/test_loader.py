"""Loaders: the same clips for the same seed, wherever an epoch is entered and whoever reads ahead."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch

from data import AugmentSpec, ClipBatch, ClipSpec, Dataset, InvalidSpecError
from data.augment import apply_crops, centre_crop
from data.cache import FrameCache, prepare_cache
from data.loader import ClipLoader, EvaluationRows, TrainingRows
from data.report import scan
from data.synthetic import write_video

CLIP = ClipSpec(frames=4, stride=2, size=24)
AUGMENT = AugmentSpec(scale_min=0.3, flip=0.5, brightness=0.3, contrast=0.3)


def assert_equal(first: Iterable[ClipBatch], second: Iterable[ClipBatch]) -> None:
    for one, other in zip(first, second, strict=True):
        assert one.ids == other.ids
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.clips, other.clips)


def loader(tiny: Dataset, count: int, **options: object) -> ClipLoader:
    """Return a training loader over the first `count` clips of the set."""
    settings = {"batch_size": 4} | options
    rows = TrainingRows(clip=CLIP, augment=AUGMENT, seed=3)
    return ClipLoader(tiny._cache, tiny.index.usable[:count], rows, **settings)  # type: ignore[arg-type]  # keywords by name


def test_a_batch_is_ready_for_the_model(tiny: Dataset) -> None:
    batch = next(tiny.train_loader(clip=CLIP, batch_size=4, seed=0).batches(0))
    assert batch.clips.shape == (4, 3, 4, 24, 24)
    assert batch.clips.dtype == torch.float32
    assert batch.labels.shape == (4,)
    assert batch.labels.dtype == torch.int64
    labels = {clip.id: clip.label for clip in tiny.index.clips}
    assert batch.labels.tolist() == [labels[id_] for id_ in batch.ids]
    assert not batch.clips.requires_grad


def test_every_video_comes_once_per_epoch_in_a_new_order(tiny: Dataset) -> None:
    train = loader(tiny, 10)
    epochs = [[id_ for batch in train.batches(epoch) for id_ in batch.ids] for epoch in range(3)]
    expected = sorted(clip.id for clip in tiny.index.usable[:10])
    assert [sorted(ids) for ids in epochs] == [expected] * 3
    assert len({tuple(ids) for ids in epochs}) == 3


def test_the_same_seed_gives_the_same_epoch(tiny: Dataset) -> None:
    assert_equal(loader(tiny, 10).batches(2), loader(tiny, 10).batches(2))


def test_another_seed_or_epoch_gives_other_clips(tiny: Dataset) -> None:
    def pixels(seed: int, epoch: int) -> dict[str, torch.Tensor]:
        train = tiny.train_loader(clip=CLIP, augment=AUGMENT, batch_size=4, seed=seed)
        return {id_: clip for batch in train.batches(epoch) for id_, clip in zip(batch.ids, batch.clips, strict=True)}

    first = pixels(0, 0)
    for other in (pixels(1, 0), pixels(0, 1)):
        assert other.keys() == first.keys()
        assert all(not torch.equal(first[id_], other[id_]) for id_ in first)


def test_a_clip_does_not_depend_on_its_batch(tiny: Dataset) -> None:
    def clips(batch_size: int) -> dict[str, torch.Tensor]:
        batches = loader(tiny, 10, batch_size=batch_size).batches(1)
        return {i: c for batch in batches for i, c in zip(batch.ids, batch.clips, strict=True)}

    small, large = clips(2), clips(10)
    for id_ in small:
        torch.testing.assert_close(small[id_], large[id_], atol=1e-4, rtol=0)


@pytest.mark.parametrize("start_batch", range(4))
@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_epoch_can_be_entered_at_any_batch(tiny: Dataset, start_batch: int, prefetch: int) -> None:
    whole = list(loader(tiny, 10).batches(5))
    assert len(whole) == 3
    rest = loader(tiny, 10, prefetch=prefetch).batches(5, start_batch=start_batch)
    assert_equal(rest, whole[start_batch:])


def test_an_abandoned_epoch_stops_reading_ahead(tiny: Dataset) -> None:
    batches = loader(tiny, 24, batch_size=1, prefetch=3).batches(0)
    next(batches)
    batches.close()  # type: ignore[attr-defined]  # it is a generator
    assert_equal(loader(tiny, 4).batches(0), loader(tiny, 4, prefetch=1).batches(0))


def test_an_error_while_reading_ahead_reaches_the_caller(tiny: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: FrameCache, id_: str) -> None:
        raise OSError(f"no frames of {id_}")

    monkeypatch.setattr(FrameCache, "video", fail)
    with pytest.raises(OSError, match="no frames of"):
        list(loader(tiny, 4, prefetch=2).batches(0))


@pytest.mark.parametrize(
    ("count", "options", "sizes"),
    [
        (8, {}, [4, 4]),
        (9, {}, [4, 4, 1]),
        (9, {"drop_single": True}, [4, 4]),
        (10, {"drop_single": True}, [4, 4, 2]),
        (10, {"drop_last": True}, [4, 4]),
        (3, {"drop_last": True}, [3]),
        (1, {"drop_single": True}, [1]),
        (3, {"batch_size": 1, "drop_single": True}, [1, 1, 1]),
    ],
)
def test_what_happens_to_the_last_batch(
    tiny: Dataset, count: int, options: dict[str, object], sizes: list[int]
) -> None:
    train = loader(tiny, count, **options)
    assert [len(batch.ids) for batch in train.batches(0)] == sizes
    assert len(train) == len(sizes)
    assert train.num_clips == count


def test_validation_is_complete_and_in_order(tiny: Dataset) -> None:
    validation = tiny.validation_loader(clip=CLIP, batch_size=3)
    ids = [id_ for batch in validation for id_ in batch.ids]
    assert ids == sorted(ids)
    assert len(ids) == validation.num_clips == 8
    assert_equal(validation.batches(0), validation.batches(7))


def test_views_are_neighbouring_rows_of_centre_crops(tiny: Dataset) -> None:
    validation = tiny.validation_loader(clip=CLIP, batch_size=6, views=3)
    batch = next(iter(validation))
    assert batch.views == 3
    assert len(batch.ids) == len(batch.labels) == 2
    assert batch.clips.shape == (6, 3, 4, 24, 24)
    video = tiny._cache.video(batch.ids[1])
    last = len(video) - CLIP.span
    for view, start in enumerate((0, round(last / 2), last)):
        frames = torch.from_numpy(np.array(video[start : start + CLIP.span : 2]))[None]
        crop = centre_crop(*video.shape[1:3], CLIP)
        vertical = slice(crop.top, crop.top + crop.height)
        boxed = frames[:, :, vertical, crop.left : crop.left + crop.width]
        expected = apply_crops(boxed, [crop], CLIP)[0]
        torch.testing.assert_close(batch.clips[3 + view], expected, atol=1e-4, rtol=0)


def test_more_views_than_rows_still_make_a_batch(tiny: Dataset) -> None:
    batch = next(iter(tiny.validation_loader(clip=CLIP, batch_size=2, views=3)))
    assert batch.clips.shape[0] == 3


def test_videos_of_different_sizes_and_lengths_load_together(tmp_path: Path) -> None:
    lines = []
    (tmp_path / "videos" / "Run").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for group, (t, height, width) in enumerate([(3, 64, 48), (30, 40, 90), (9, 32, 32)], start=1):
        name = f"v_Run_g{group:02d}_c01.avi"
        frames = rng.integers(0, 255, (t, height, width, 3), dtype=np.uint8)
        write_video(tmp_path / "videos" / "Run" / name, frames)
        lines.append(f"Run/{name} 1")
    (tmp_path / "trainlist01.txt").write_text("\n".join(lines))
    (tmp_path / "classInd.txt").write_text("1 Run")
    index = scan(tmp_path)
    cache = prepare_cache(index, tmp_path, tmp_path / "cache", short_side=32)
    for rows in (
        TrainingRows(clip=CLIP, augment=AUGMENT, seed=0),
        EvaluationRows(clip=CLIP),
    ):
        (batch,) = ClipLoader(cache, index.usable, rows, batch_size=8)
        assert batch.clips.shape == (3, 3, 4, 24, 24)
        assert torch.isfinite(batch.clips).all()


def test_a_batch_needs_a_size(tiny: Dataset) -> None:
    with pytest.raises(InvalidSpecError, match="batch_size is 0"):
        tiny.train_loader(clip=CLIP, batch_size=0, seed=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gets_the_same_clips(tiny: Dataset) -> None:
    on_cpu = list(loader(tiny, 10).batches(0))
    on_gpu = list(loader(tiny, 10, device="cuda").batches(0))
    for one, other in zip(on_cpu, on_gpu, strict=True):
        assert other.clips.is_cuda
        assert other.labels.is_cuda
        torch.testing.assert_close(one.clips, other.clips.cpu(), atol=1e-3, rtol=0)

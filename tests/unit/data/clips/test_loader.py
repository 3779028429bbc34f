"""Loaders: the same clips for the same seed, wherever an epoch is entered and whoever reads ahead."""

from __future__ import annotations

import queue
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from data import (
    AugmentSpec,
    CacheError,
    ClipBatch,
    ClipSpec,
    Dataset,
    DatasetSpec,
    FlowError,
    InvalidSpecError,
    open_dataset,
)
from data.clips.augment import Change
from data.clips.crops import view_boxes
from data.clips.loader import ClipLoader
from data.clips.pixels import rgb_clips
from data.clips.plan import EvaluationRows, TrainingRows
from data.clips.share import Share
from data.preparation.prepare import prepare
from data.scanning.scan import scan
from data.specs import StoreKind, Stream
from data.stores.protocol import Box, FrameStore
from data.stores.raw import RawStore
from data.synthetic.dataset import write_video

CLIP = ClipSpec(frames=4, stride=2, size=24)
AUGMENT = AugmentSpec(scale_min=0.3, flip=0.5, jitter=0.3)


def assert_equal(first: Iterable[ClipBatch], second: Iterable[ClipBatch]) -> None:
    for one, other in zip(first, second, strict=True):
        assert one.ids == other.ids
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(only(one), only(other))
        assert torch.equal(one.targets, other.targets)


def only(batch: ClipBatch) -> torch.Tensor:
    """Return the clips of a batch that has one stream."""
    assert isinstance(batch.clips, torch.Tensor)
    return batch.clips


def frames_of(dataset: Dataset, id_: str) -> np.ndarray:
    """Return all prepared frames (T, H, W, 3) of a clip."""
    store = dataset.stores["rgb"]
    assert isinstance(store, RawStore)
    return store.video(id_)


def cut(video: np.ndarray, indices: Iterable[int], box: Box) -> torch.Tensor:
    """Return the box of some frames."""
    frames = video[list(indices), box.top : box.top + box.height, box.left : box.left + box.width]
    return torch.from_numpy(np.ascontiguousarray(frames))


def loader(tiny: Dataset, count: int, **options: object) -> ClipLoader:
    """Return a training loader over the first `count` clips of the set."""
    settings = {"batch_size": 4} | options
    rows = TrainingRows(clip=CLIP, augment=AUGMENT, seed=3)
    return ClipLoader(tiny.stores, tiny.index.usable[:count], rows, **settings)  # type: ignore[arg-type]  # keywords by name


def test_a_batch_is_ready_for_the_model(tiny: Dataset) -> None:
    batch = next(tiny.train_loader(clip=CLIP, batch_size=4, seed=0).batches(0))
    assert only(batch).shape == (4, 3, 4, 24, 24)
    assert only(batch).dtype == torch.float32
    assert batch.labels.shape == (4,)
    assert batch.labels.dtype == torch.int64
    labels = {clip.id: clip.label for clip in tiny.index.clips}
    assert batch.labels.tolist() == [labels[id_] for id_ in batch.ids]
    assert not only(batch).requires_grad


def test_every_video_comes_once_per_epoch_in_a_new_order(tiny: Dataset) -> None:
    train = loader(tiny, 10)
    epochs = [[id_ for batch in train.batches(epoch) for id_ in batch.ids] for epoch in range(3)]
    expected = sorted(clip.id for clip in tiny.index.usable[:10])
    assert [sorted(ids) for ids in epochs] == [expected] * 3
    assert len({tuple(ids) for ids in epochs}) == 3


@pytest.mark.parametrize("batch_size", [4, 3])
def test_repeated_videos_follow_each_other_with_other_clips(tiny: Dataset, batch_size: int) -> None:
    rows = TrainingRows(clip=CLIP, augment=AUGMENT.model_copy(update={"repeats": 3}), seed=3)
    repeated = ClipLoader(tiny.stores, tiny.index.usable[:10], rows, batch_size=batch_size)
    batches = [(batch.ids, only(batch).clone()) for batch in repeated.batches(1)]
    ids = [id_ for batch, _ in batches for id_ in batch]
    assert len(repeated) == len(batches) == -(-30 // batch_size)
    once = [id_ for batch in loader(tiny, 10).batches(1) for id_ in batch.ids]
    assert ids == [id_ for id_ in once for _ in range(3)]
    clips = torch.cat([clips for _, clips in batches]).unflatten(0, (10, 3))
    assert all(not torch.equal(one[0], one[1]) and not torch.equal(one[1], one[2]) for one in clips)
    first = torch.cat([only(batch).clone() for batch in loader(tiny, 10).batches(1)])
    assert torch.equal(clips[:, 0], first), "the first time each video is seen as without repeats"
    rest = ClipLoader(tiny.stores, tiny.index.usable[:10], rows, batch_size=batch_size).batches(1, start_batch=2)
    assert torch.equal(only(next(rest)), batches[2][1])


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
        assert torch.equal(small[id_], large[id_])


@pytest.mark.parametrize("start_batch", range(4))
@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_epoch_can_be_entered_at_any_batch(tiny: Dataset, start_batch: int, prefetch: int) -> None:
    whole = list(loader(tiny, 10).batches(5))
    assert len(whole) == 3
    rest = loader(tiny, 10, prefetch=prefetch).batches(5, start_batch=start_batch)
    assert_equal(rest, whole[start_batch:])


@pytest.mark.parametrize(("prefetch", "readers"), [(1, 1), (2, 2), (6, 4), (3, 9)])
def test_the_number_of_readers_changes_nothing(tiny: Dataset, prefetch: int, readers: int) -> None:
    augment = AUGMENT.model_copy(
        update={"hue": 0.1, "randaugment_n": 1, "erase": 0.3, "mixup_alpha": 0.8, "cutmix_alpha": 1.0}
    )
    rows = TrainingRows(clip=CLIP, augment=augment, seed=3)
    alone, together = (
        ClipLoader(tiny.stores, tiny.index.usable, rows, batch_size=3, prefetch=ahead, readers=threads)
        for ahead, threads in ((0, 1), (prefetch, readers))
    )
    assert_equal(alone.batches(1), together.batches(1))
    # Memory that batches share must not be shared while it is read.
    assert_equal(alone.batches(2), list(together.batches(2)))


@pytest.mark.parametrize("store", [kind for kind in get_args(StoreKind) if kind != "auto"])
def test_every_store_is_read_alike_by_many_readers(tiny_root: Path, tmp_path: Path, store: StoreKind) -> None:
    spec = DatasetSpec(name="ucf101", root=tiny_root, short_side=32, store=store)
    opened = open_dataset(spec, cache_dir=tmp_path)

    def batches(prefetch: int) -> Iterable[ClipBatch]:
        options: dict[str, Any] = {"batch_size": 2, "seed": 0, "prefetch": prefetch, "readers": 4}
        return opened.train_loader(clip=CLIP, augment=AUGMENT, **options).batches(1)

    alone = list(batches(0))
    assert sum(len(batch.ids) for batch in alone) == 8
    for _ in range(3):
        assert_equal(batches(4), alone)


def test_an_abandoned_epoch_stops_reading_ahead(tiny: Dataset) -> None:
    batches = loader(tiny, 24, batch_size=1, prefetch=3).batches(0)
    next(batches)
    batches.close()  # type: ignore[attr-defined]  # it is a generator
    assert_equal(loader(tiny, 4).batches(0), loader(tiny, 4, prefetch=1).batches(0))


@pytest.mark.parametrize(("begun", "start_batch"), [(1, 0), (2, 0), (1, 3)])
def test_an_epoch_that_was_begun_to_be_read_is_as_any_other(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch, begun: int, start_batch: int
) -> None:
    expected = list(loader(tiny, 10, batch_size=2).batches(1, start_batch=start_batch))
    made = loader(tiny, 10, batch_size=2, prefetch=2, readers=1)
    reads: queue.SimpleQueue[int] = queue.SimpleQueue()
    read = ClipLoader._read

    def noted(self: ClipLoader, job: Any, epoch: int) -> Any:
        reads.put(epoch)
        return read(self, job, epoch)

    monkeypatch.setattr(ClipLoader, "_read", noted)
    made.read_ahead(begun)
    assert reads.get(timeout=60) == begun  # before anybody asks for a batch
    assert_equal(list(made.batches(1, start_batch=start_batch)), expected)
    assert_equal(list(made.batches(1, start_batch=start_batch)), expected)
    assert reads.qsize() <= 2 * len(expected) + (0 if (begun, start_batch) == (1, 0) else 1)


def test_an_error_while_reading_ahead_reaches_the_caller(tiny: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: RawStore, id_: str) -> None:
        raise OSError(f"no frames of {id_}")

    monkeypatch.setattr(RawStore, "video", fail)
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
def test_the_last_batch_is_kept_or_dropped(
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
    assert only(batch).shape == (6, 3, 4, 24, 24)
    video = frames_of(tiny, batch.ids[1])
    _, height, width, _ = video.shape
    ((box, _),) = view_boxes(height, width, 1, CLIP.crop_fraction)
    last = len(video) - CLIP.span
    for view, start in enumerate((0, round(last / 2), last)):
        frames = cut(video, range(start, start + CLIP.span, 2), box)
        assert torch.equal(only(batch)[3 + view], rgb_clips([frames], [Change(box=box)], CLIP)[0])


@pytest.mark.parametrize("crops", [3, 5, 10])
def test_every_view_is_seen_in_every_crop(tiny: Dataset, crops: int) -> None:
    validation = tiny.validation_loader(clip=CLIP, batch_size=40, views=2, crops=crops)
    batch = next(iter(validation))
    assert batch.views == 2 * crops
    assert only(batch).shape[0] == 2 * crops * len(batch.ids)
    video = frames_of(tiny, batch.ids[0])
    _, height, width, _ = video.shape
    boxes = view_boxes(height, width, crops, CLIP.crop_fraction)
    last = len(video) - CLIP.span
    expected = [
        rgb_clips([cut(video, range(start, start + CLIP.span, 2), box)], [Change(box=box, flip=flip)], CLIP)[0]
        for start in (0, last)
        for box, flip in boxes
    ]
    assert torch.equal(only(batch)[: 2 * crops], torch.stack(expected))


def test_invalid_views_do_not_break_the_seal(tiny: Dataset, tiny_cache_dir: Path) -> None:
    log = tiny_cache_dir / "unsealed.jsonl"
    before = log.read_text() if log.exists() else ""
    with pytest.raises(InvalidSpecError, match="crops is 2"):
        tiny.test_loader(reason="a test", clip=CLIP, batch_size=8, crops=2)
    with pytest.raises(InvalidSpecError, match="views is 0"):
        tiny.test_loader(reason="a test", clip=CLIP, batch_size=8, views=0)
    assert (log.read_text() if log.exists() else "") == before


def test_more_views_than_rows_still_make_a_batch(tiny: Dataset) -> None:
    batch = next(iter(tiny.validation_loader(clip=CLIP, batch_size=2, views=3)))
    assert only(batch).shape[0] == 3


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
    cache = prepare(index, DatasetSpec(name="ucf101", root=tmp_path, short_side=32), tmp_path / "cache")["rgb"]
    for rows in (
        TrainingRows(clip=CLIP, augment=AUGMENT, seed=0),
        EvaluationRows(clip=CLIP),
    ):
        (batch,) = ClipLoader({"rgb": cache}, index.usable, rows, batch_size=8)
        assert only(batch).shape == (3, 3, 4, 24, 24)
        assert torch.isfinite(only(batch)).all()


@pytest.mark.parametrize("field", ["batch_size", "readers"])
def test_a_loader_needs_a_size_and_a_reader(tiny: Dataset, field: str) -> None:
    with pytest.raises(InvalidSpecError, match=f"{field} is 0; it must be at least 1"):
        loader(tiny, 4, **{field: 0})


class MadeFlow:
    """Flow of the tiny set, made up: in clip `id_`, field t is the vector (t, 255 - t) everywhere."""

    channels = 2

    def __init__(self, frames: FrameStore) -> None:
        self._frames = frames

    def shape(self, id_: str) -> tuple[int, int, int]:
        count, height, width = self._frames.shape(id_)
        return count - 1, height, width

    def read_into(self, id_: str, indices: np.ndarray, box: Box, target: np.ndarray) -> None:
        target[..., 0] = indices[:, None, None]
        target[..., 1] = 255 - indices[:, None, None]

    def __contains__(self, id_: object) -> bool:
        return id_ in self._frames

    def __len__(self) -> int:
        return len(self._frames)


BOTH = CLIP.model_copy(update={"inputs": ("rgb", "flow"), "flow_pairs": 3})


def test_flow_goes_with_the_frames(tiny: Dataset) -> None:
    stores = {**tiny.stores, "flow": MadeFlow(tiny.stores["rgb"])}
    for rows in (TrainingRows(clip=BOTH, augment=AUGMENT, seed=3), EvaluationRows(clip=BOTH, clips=2, crops=10)):
        plain = replace(rows, clip=CLIP)
        pairs = ClipLoader(stores, tiny.index.usable[:6], rows, batch_size=40).batches(1)
        frames = ClipLoader(stores, tiny.index.usable[:6], plain, batch_size=40).batches(1)
        for pair, alone in zip(pairs, frames, strict=True):
            rgb, flow = pair.clips
            assert torch.equal(rgb, only(alone))
            assert flow.shape == (len(rgb), 6, 4, 24, 24)
            made = [row for id_ in pair.ids for row in rows.rows(id_, stores, 1)]
            for clip, row in zip(flow, made, strict=True):
                times = row.readings[0].indices
                wanted = np.clip(times[:, None] + [-1, 0, 1], 0, stores["flow"].shape(row.id)[0] - 1)
                sign = -1 if row.change.flip else 1
                across = (wanted - 127.5) * sign * 24 / row.change.box.width / 255 / 0.226
                np.testing.assert_allclose(clip[0::2, :, 5, 5].T, across, rtol=1e-5)


def test_flow_alone_sees_the_frames_that_rgb_would(tiny: Dataset) -> None:
    stores = {**tiny.stores, "flow": MadeFlow(tiny.stores["rgb"])}
    alone = BOTH.model_copy(update={"inputs": ("flow",)})
    first, second = (
        ClipLoader(stores, tiny.index.usable[:6], TrainingRows(clip=clip, augment=AUGMENT, seed=3), batch_size=6)
        for clip in (BOTH, alone)
    )
    for pair, single in zip(first, second, strict=True):
        assert torch.equal(pair.clips[1], only(single))


def test_both_streams_are_mixed_and_turned_and_erased_alike(tiny: Dataset) -> None:
    augment = AUGMENT.model_copy(update={"erase": 1.0, "cutmix_alpha": 1.0})
    rows = TrainingRows(clip=BOTH, augment=augment, seed=3)
    stores = {**tiny.stores, "flow": MadeFlow(tiny.stores["rgb"])}
    batch = next(ClipLoader(stores, tiny.index.usable[:6], rows, batch_size=6, num_classes=4).batches(0))
    rgb, flow = batch.clips
    assert torch.equal((flow == 0).all(1), (rgb == 0).all(1))
    assert (flow == 0).any()
    assert batch.targets.shape == (6, 4)
    torch.testing.assert_close(batch.targets.sum(1), torch.ones(6))


def test_labels_of_a_mixed_batch_are_those_of_the_larger_parts(tiny: Dataset) -> None:
    rows = TrainingRows(clip=CLIP, augment=AUGMENT.model_copy(update={"mixup_alpha": 0.8}), seed=3)
    train = ClipLoader(tiny.stores, tiny.index.usable, rows, batch_size=6)
    label = {clip.id: clip.label for clip in tiny.index.usable}
    for epoch in range(3):
        for number, batch in enumerate(train.batches(epoch)):
            mix = rows.mix(epoch, number)
            assert mix is not None
            own = torch.tensor([label[id_] for id_ in batch.ids])
            assert torch.equal(batch.labels, own if mix.share >= 0.5 else own.flip(0))
            torch.testing.assert_close(batch.targets.gather(1, own[:, None])[:, 0] >= mix.share - 1e-6, own >= 0)


def test_a_stream_that_was_not_prepared_is_asked_for(tiny: Dataset) -> None:
    with pytest.raises(InvalidSpecError, match="the clips need flow, which the data set was opened without"):
        ClipLoader(tiny.stores, tiny.index.usable, EvaluationRows(clip=BOTH), batch_size=2)


def test_flow_of_another_size_is_refused(tiny: Dataset) -> None:
    class Small(MadeFlow):
        def shape(self, id_: str) -> tuple[int, int, int]:
            return 9, 10, 12

    stores = {**tiny.stores, "flow": Small(tiny.stores["rgb"])}
    with pytest.raises(CacheError, match=r"the flow of .* is 12 x 10, its frames 43 x 32; prepare both again"):
        next(iter(ClipLoader(stores, tiny.index.usable, EvaluationRows(clip=BOTH), batch_size=2)))


def test_a_clip_of_one_frame_has_no_flow(tiny: Dataset) -> None:
    class Still(MadeFlow):
        def shape(self, id_: str) -> tuple[int, int, int]:
            return 0, *super().shape(id_)[1:]

    stores = {**tiny.stores, "flow": Still(tiny.stores["rgb"])}
    with pytest.raises(FlowError, match=r"Grow/v_Grow_.* has one frame and so no optical flow"):
        next(iter(ClipLoader(stores, tiny.index.usable, EvaluationRows(clip=BOTH), batch_size=2)))


def test_a_corrupt_clip_ends_the_epoch_by_name(tiny: Dataset) -> None:
    class Corrupt(MadeFlow):
        def read_into(self, id_: str, indices: np.ndarray, box: Box, target: np.ndarray) -> None:
            if "Shrink" in id_:
                raise CacheError(f"{id_} is damaged")
            super().read_into(id_, indices, box, target)

    stores: dict[Stream, FrameStore] = {"flow": Corrupt(tiny.stores["rgb"])}
    rows = TrainingRows(clip=BOTH.model_copy(update={"inputs": ("flow",)}), augment=AUGMENT, seed=3)
    for prefetch in (0, 3):
        with pytest.raises(CacheError, match=r"Shrink/v_Shrink_.* is damaged"):
            list(ClipLoader(stores, tiny.index.usable, rows, batch_size=2, prefetch=prefetch))


def anonymous_bytes() -> int:
    """Return the memory of this process that no file backs."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1]) << 10


@pytest.mark.parametrize("epochs", [60, pytest.param(4200, marks=pytest.mark.slow)])
def test_memory_stays_flat(tiny: Dataset, epochs: int) -> None:
    clip = ClipSpec(frames=2, stride=1, size=16)
    rows = TrainingRows(clip=clip, augment=AUGMENT, seed=0)
    train = ClipLoader(tiny.stores, tiny.index.usable, rows, batch_size=6, prefetch=2, readers=2)
    sizes = []
    for epoch in range(epochs):  # 24 clips each: 100,800 in the long run
        for _ in train.batches(epoch):
            pass
        sizes.append(anonymous_bytes())
    settled = sizes[epochs // 4]
    assert sizes[-1] - settled < 4 << 20


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gets_the_same_clips(tiny: Dataset) -> None:
    on_cpu = list(loader(tiny, 10).batches(0))
    on_gpu = list(loader(tiny, 10, device="cuda").batches(0))
    for one, other in zip(on_cpu, on_gpu, strict=True):
        assert only(other).is_cuda
        assert other.labels.is_cuda
        torch.testing.assert_close(only(one), only(other).cpu(), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("test_size", "fraction"), [(0, 0.875), (24, 0.875), (18, 0.65625), (27, 0.984375), (40, 1.0)])
def test_larger_clips_of_an_evaluation_show_more_at_the_same_scale(
    tiny: Dataset, test_size: int, fraction: float
) -> None:
    clip = ClipSpec(frames=4, stride=2, size=24, test_size=test_size)
    found = clip.for_evaluation()
    assert (found.size, found.crop_fraction) == (test_size or 24, fraction)
    assert found.for_evaluation() == found
    for made in (
        tiny.validation_loader(clip=clip, batch_size=2),
        tiny.statistics_loader(clip=clip, batch_size=2, seed=0, most_batches=1),
        tiny.test_loader(reason="a test", clip=clip, batch_size=2),
    ):
        assert only(next(made.batches(0))).shape[-2:] == (test_size or 24, test_size or 24)
        (host, *_) = made.host_batches(0)
        for row in host.rows:
            short = min(tiny.stores["rgb"].shape(row.id)[1:])
            assert row.change.box.height == row.change.box.width == round(short * fraction)
    assert only(next(tiny.train_loader(clip=clip, batch_size=2, seed=0).batches(0))).shape[-1] == 24


@pytest.mark.parametrize(("batch_size", "of"), [(8, 2), (7, 3)])
def test_shares_of_a_batch_are_together_the_batch(tiny: Dataset, batch_size: int, of: int) -> None:
    """Whatever is drawn for a clip, and what it is mixed with, does not depend on which process reads it."""
    augment = AUGMENT.model_copy(update={"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "mixup_switch_prob": 0.5})
    rows = TrainingRows(clip=CLIP, augment=augment, seed=3)
    clips, classes = tiny.index.usable[:17], tiny.num_classes

    def batches(epoch: int, share: Share | None) -> list[ClipBatch]:
        read = ClipLoader(tiny.stores, clips, rows, batch_size=batch_size, num_classes=classes, share=share)
        # Loaders of a CPU use memory again.
        return [replace(batch, clips=only(batch).clone()) for batch in read.batches(epoch)]

    # A last batch of fewer videos than shares is left out, so that the whole may have one more.
    compared = [
        found
        for epoch in range(2)
        for found in zip(
            batches(epoch, None), *(batches(epoch, Share(number, of)) for number in range(of)), strict=False
        )
    ]
    assert len(compared) >= 4
    for whole, *parts in compared:
        assert [part.whole for part in parts] == [len(whole.ids)] * of
        assert sorted(id_ for part in parts for id_ in part.ids) == sorted(whole.ids)
        for part in parts:
            places = [whole.ids.index(id_) for id_ in part.ids]
            assert torch.equal(only(part), only(whole)[places])
            assert torch.equal(part.labels, whole.labels[places])
            assert torch.equal(part.targets, whole.targets[places])


def test_a_last_batch_with_fewer_videos_than_shares_is_left_out(tiny: Dataset) -> None:
    assert len(loader(tiny, 10, share=Share(0, 2))) == 3
    assert len(loader(tiny, 10, share=Share(0, 4))) == 2
    with pytest.raises(InvalidSpecError, match="a batch of 3 videos cannot be shared by 4 processes"):
        loader(tiny, 3, share=Share(0, 4))

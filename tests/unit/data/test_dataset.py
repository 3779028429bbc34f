"""Opening a data set: the entry point of training, on sound sets, damaged ones and none at all."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import data.reading.video
import data.scanning.measure
from data import (
    AugmentSpec,
    CacheError,
    ClipSpec,
    Dataset,
    DatasetError,
    DatasetNotFoundError,
    DatasetSpec,
    GroupLeakError,
    InvalidSpecError,
    SplitError,
    UnknownDatasetError,
    make_demo_dataset,
    open_dataset,
    scan,
)
from data.clips.loader import ClipLoader
from data.clips.plan import EvaluationRows
from data.reading.video import measure_video
from data.scanning.report import check
from data.stores.raw import RawStore

CLIP = ClipSpec(frames=4, stride=2, size=24)


@pytest.fixture
def damaged_root(tiny_root: Path, tmp_path: Path) -> Path:
    """A copy of the tiny set with one video each: empty, cut, not a video, and gone."""
    root = tmp_path / "damaged"
    shutil.copytree(tiny_root, root)
    videos = root / "videos"
    (videos / "Grow" / "v_Grow_g02_c01.avi").write_bytes(b"")
    cut = videos / "Shrink" / "v_Shrink_g02_c01.avi"
    cut.write_bytes(cut.read_bytes()[:9000])
    (videos / "SlideLeft" / "v_SlideLeft_g03_c01.avi").write_text("not a video")
    (videos / "SlideRight" / "v_SlideRight_g01_c02.avi").unlink()
    return root


def spec(root: Path, **changes: object) -> DatasetSpec:
    return DatasetSpec(**({"name": "ucf101", "root": root, "short_side": 32} | changes))  # type: ignore[arg-type]  # keywords by name


def test_an_opened_set_has_classes_version_and_loaders(tiny: Dataset) -> None:
    assert tiny.class_names == ("SlideLeft", "SlideRight", "Grow", "Shrink")
    assert tiny.num_classes == 4
    assert tiny.version == tiny.index.hash
    assert tiny.problems == ()
    assert tiny.notes == ()
    train = tiny.train_loader(clip=CLIP, augment=AugmentSpec(), batch_size=3, seed=0)
    assert (train.num_clips, len(train)) == (8, 3)
    assert tiny.validation_loader(clip=CLIP, batch_size=3).num_clips == 8
    refit = tiny.with_validation_trained()
    assert refit.train_loader(clip=CLIP, batch_size=3, seed=0).num_clips == refit.num_fit == 16
    assert refit.validation_loader(clip=CLIP, batch_size=3).num_clips == 8
    assert (tiny.num_fit, refit.version, refit.test_list) == (8, tiny.version, tiny.test_list)


def test_statistics_are_of_fit_clips_as_a_validation_sees_them_in_orders_of_their_own(tiny: Dataset) -> None:
    fit = {id_ for batch in tiny.train_loader(clip=CLIP, batch_size=8, seed=0) for id_ in batch.ids}
    assert tiny.num_fit == len(fit)
    loader = tiny.statistics_loader(clip=CLIP, batch_size=3, seed=0, most_batches=9)
    orders = [[id_ for batch in loader.batches(epoch) for id_ in batch.ids] for epoch in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2] != sorted(orders[2])
    assert {*orders[0]} == {*orders[2]} == fit
    few = tiny.statistics_loader(clip=CLIP, batch_size=3, seed=0, most_batches=2)
    assert [id_ for batch in few for id_ in batch.ids] == orders[0][:6]
    assert len(few) == 2
    stores, clips = tiny.stores, [clip for clip in tiny.index.usable if clip.id in fit]
    seen: dict[str, torch.Tensor] = {}
    for batch in loader:
        assert isinstance(batch.clips, torch.Tensor)
        seen |= dict(zip(batch.ids, batch.clips.clone(), strict=True))
    for batch in ClipLoader(stores, clips, EvaluationRows(clip=CLIP), batch_size=1):
        assert torch.equal(seen[batch.ids[0]], batch.clips[0])


def test_each_trial_holds_out_groups_of_its_own_from_the_same_frames(tmp_path: Path) -> None:
    root = make_demo_dataset(tmp_path / "set", classes=("Grow", "Shrink"), groups=8, clips_per_group=1, frames=8)
    kept: set[frozenset[str]] = set()
    frames = None
    for seed in range(4):
        opened = open_dataset(spec(root, split_seed=seed), cache_dir=tmp_path / "cache")
        group = {clip.id: clip.group for clip in opened.index.clips}
        held = {group[id_] for batch in opened.validation_loader(clip=CLIP, batch_size=8) for id_ in batch.ids}
        fit = {group[id_] for batch in opened.train_loader(clip=CLIP, batch_size=8, seed=0) for id_ in batch.ids}
        tested = {clip.group for clip in opened.index.clips if clip.subset(1) == "test"}
        assert not held & fit
        assert not (held | fit) & tested
        assert {"test"} == {clip.subset(1) for clip in opened.index.clips if clip.group not in held | fit}
        kept.add(frozenset(held))
        built = sorted(path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*") if path.suffix != ".jsonl")
        assert frames in (None, built), "nothing is prepared again"
        frames = built
    assert len(kept) > 1


def test_fit_validation_and_test_share_no_group(tiny: Dataset) -> None:
    group = {clip.id: clip.group.rpartition("/")[2] for clip in tiny.index.clips}
    train = tiny.train_loader(clip=CLIP, batch_size=8, seed=0)
    fit = {group[id_] for batch in train for id_ in batch.ids}
    validation = tiny.validation_loader(clip=CLIP, batch_size=8)
    held_out = {group[id_] for batch in validation for id_ in batch.ids}
    test = {group[clip.id] for clip in tiny.unseal_test(reason="a test of the split")}
    assert (fit, held_out, test) == ({"g02"}, {"g03"}, {"g01"})


def test_the_test_list_opens_for_a_reason_only_and_is_recorded(
    tiny: Dataset, tiny_cache_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InvalidSpecError, match="sealed"):
        tiny.unseal_test(reason="  ")
    with caplog.at_level(logging.WARNING):
        loader = tiny.test_loader(reason="final evaluation of best", clip=CLIP, batch_size=8)
    assert loader.num_clips == 8
    assert "final evaluation of best" in caplog.text
    entry = json.loads((tiny_cache_dir / "unsealed.jsonl").read_text().splitlines()[-1])
    assert entry["reason"] == "final evaluation of best"
    assert (entry["version"], entry["split"], entry["clips"]) == (tiny.version, 1, 8)


def test_an_opening_that_cannot_be_recorded_does_not_happen(tiny_root: Path, tmp_path: Path) -> None:
    opened = open_dataset(spec(tiny_root), cache_dir=tmp_path)
    (tmp_path / "unsealed.jsonl").mkdir()
    with pytest.raises(CacheError, match="cannot be recorded"):
        opened.unseal_test(reason="final evaluation")


def test_opening_again_decodes_nothing(
    tiny: Dataset, tiny_root: Path, tiny_cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data.scanning.measure, "measure_video", None)
    monkeypatch.setattr(data.reading.video, "decode_frames", None)
    told: list[object] = []
    again = open_dataset(spec(tiny_root), cache_dir=tiny_cache_dir, progress=lambda *step: told.append(step))
    assert again.version == tiny.version
    assert told == []


def test_other_splits_share_the_version_and_the_frames(tiny: Dataset, tiny_root: Path, tiny_cache_dir: Path) -> None:
    other = open_dataset(spec(tiny_root, split=2), cache_dir=tiny_cache_dir)
    assert other.version == tiny.version
    ours, theirs = tiny.stores["rgb"], other.stores["rgb"]
    assert isinstance(ours, RawStore)
    assert isinstance(theirs, RawStore)
    assert theirs.folder == ours.folder


def test_a_moved_set_keeps_its_version(tiny: Dataset, tiny_root: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_root, tmp_path / "moved")
    assert scan(tmp_path / "moved").hash == tiny.version


def test_a_replaced_video_changes_the_version(tiny: Dataset, tiny_root: Path, tmp_path: Path) -> None:
    root, cache_dir = tmp_path / "set", tmp_path / "cache"
    shutil.copytree(tiny_root, root)
    assert open_dataset(spec(root), cache_dir=cache_dir).version == tiny.version
    clips = root / "videos" / "Grow"
    shutil.copyfile(clips / "v_Grow_g01_c01.avi", clips / "v_Grow_g01_c02.avi")
    replaced = open_dataset(spec(root), cache_dir=cache_dir)
    assert replaced.version != tiny.version
    assert check(replaced.index).duplicates == (("Grow/v_Grow_g01_c01", "Grow/v_Grow_g01_c02"),)


def test_broken_videos_are_named_counted_and_left_out(damaged_root: Path, tmp_path: Path) -> None:
    opened = open_dataset(spec(damaged_root), cache_dir=tmp_path / "cache")
    assert {p.id: p.status for p in opened.problems} == {
        "Grow/v_Grow_g02_c01": "empty",
        "Shrink/v_Shrink_g02_c01": "truncated",
        "SlideLeft/v_SlideLeft_g03_c01": "corrupt",
        "SlideRight/v_SlideRight_g01_c02": "missing",
    }
    assert all(problem.note for problem in opened.problems)
    train = opened.train_loader(clip=CLIP, batch_size=8, seed=0)
    validation = opened.validation_loader(clip=CLIP, batch_size=8)
    assert (train.num_clips, validation.num_clips) == (6, 7)
    assert len([id_ for loader in (train, validation) for b in loader for id_ in b.ids]) == 13
    assert opened.test_loader(reason="count", clip=CLIP, batch_size=8).num_clips == 7


def test_a_broken_video_moves_no_group(damaged_root: Path, tmp_path: Path) -> None:
    for video in (damaged_root / "videos" / "Grow").glob("*_g03_*"):
        video.unlink()
    opened = open_dataset(spec(damaged_root), cache_dir=tmp_path / "cache")
    train = opened.train_loader(clip=CLIP, batch_size=8, seed=0)
    assert all("_g02_" in id_ for batch in train for id_ in batch.ids)


def test_checking_reports_content_and_problems(damaged_root: Path) -> None:
    report = check(scan(damaged_root))
    assert report.n_clips == 20
    assert len(report.problems) == 4
    assert not report.sound
    assert report.clips_per_class == {"SlideLeft": 5, "SlideRight": 5, "Grow": 5, "Shrink": 5}
    assert report.groups_per_class == {"SlideLeft": 3, "SlideRight": 3, "Grow": 3, "Shrink": 3}
    (first, *_) = report.splits
    assert (first.number, first.fit, first.validation, first.test) == (1, 6, 7, 7)
    assert len(report.splits) == 3


def test_a_sound_dataset_passes_the_check(tiny: Dataset) -> None:
    report = check(tiny.index)
    assert report.sound
    assert report.n_frames == sum(clip.n_frames for clip in tiny.index.clips)


def test_a_scan_keeps_its_measurements(damaged_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = tmp_path / "memory.jsonl"
    told: list[tuple[str, int, int]] = []
    first = scan(damaged_root, memory=memory, progress=lambda *step: told.append(step))
    assert told == [("scan", n, 23) for n in range(1, 24)]  # one is missing
    with memory.open("ab") as file:
        file.write(b'{"format": 1, "key": "cut by a cra')
    restored = damaged_root / "videos" / "SlideRight" / "v_SlideRight_g01_c02.avi"
    shutil.copy(restored.with_name("v_SlideRight_g01_c01.avi"), restored)
    measured = []

    def counted(path: Path, **segment: Any) -> object:
        measured.append(path.name)
        return measure_video(path, **segment)

    monkeypatch.setattr(data.scanning.measure, "measure_video", counted)
    second = scan(damaged_root, memory=memory)
    assert measured == [restored.name]
    assert len(second.usable) == len(first.usable) + 1
    scan(damaged_root, memory=memory)
    assert measured == [restored.name]


def test_an_unknown_format_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpecError, match="unknown layout 'ucf202'; known: auto, ucf101"):
        spec(tmp_path, name="ucf202")
    with pytest.raises(UnknownDatasetError, match=r"no data set layout is called 'ucf202'; known: auto, .*ucf101"):
        scan(tmp_path, name="ucf202")


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match=r"there is no folder .*nowhere"):
        open_dataset(spec(tmp_path / "nowhere"), cache_dir=tmp_path / "cache")


def test_a_missing_split_is_named(tiny_root: Path, tiny_cache_dir: Path) -> None:
    with pytest.raises(SplitError, match=r"no train clips of split 9; they describe \[1, 2, 3\]"):
        open_dataset(spec(tiny_root, split=9), cache_dir=tiny_cache_dir)


def test_a_set_of_missing_videos_is_one_sentence(tiny_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(tiny_root, root, ignore=shutil.ignore_patterns("*.avi"))
    with pytest.raises(SplitError, match=r"no usable fit clips: 8 videos are left out, e\.g\. videos/"):
        open_dataset(spec(root), cache_dir=tmp_path / "cache")


def test_one_class_is_not_enough(tiny_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    keep_one = shutil.ignore_patterns("v_Slide*.avi", "v_Grow*.avi")
    shutil.copytree(tiny_root, root, ignore=keep_one)
    with pytest.raises(SplitError, match="usable clips of 1 class; training needs two"):
        open_dataset(spec(root), cache_dir=tmp_path / "cache")


def test_a_leaking_list_is_refused(tiny_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(tiny_root, root)
    lists = root / "annotations" / "ucf101_splits"
    test = lists / "testlist01.txt"
    lines = test.read_text().splitlines()
    train = lists / "trainlist01.txt"
    train.write_text(train.read_text() + lines[0] + " 1\n")
    test.write_text("\n".join(lines[1:]))
    with pytest.raises(GroupLeakError, match="group SlideLeft/g01 of class SlideLeft"):
        open_dataset(spec(root), cache_dir=tmp_path / "cache")
    assert "g01" in check(scan(root)).splits[0].error


def test_a_cache_folder_that_cannot_be_made_is_named(tiny_root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="file cannot be used for the cache"):
        open_dataset(spec(tiny_root), cache_dir=tmp_path / "file")


def test_every_error_is_a_dataset_error() -> None:
    for error in (CacheError, DatasetNotFoundError, GroupLeakError, InvalidSpecError):
        assert issubclass(error, DatasetError)


@pytest.mark.parametrize(("split", "counts"), [(1, (78, 16, 44)), (2, (72, 16, 50))])
def test_real_people_in_the_same_layout(
    shared_data: Path, tmp_path: Path, split: int, counts: tuple[int, int, int]
) -> None:
    root = shared_data / "weizmann_mini"
    opened = open_dataset(spec(root, split=split, short_side=64), cache_dir=tmp_path)
    assert opened.problems == ()
    assert sum(clip.n_frames for clip in opened.index.clips) == 5290
    loaders = (
        opened.train_loader(clip=CLIP, batch_size=8, seed=0),
        opened.validation_loader(clip=CLIP, batch_size=8),
        opened.test_loader(reason="count", clip=CLIP, batch_size=8),
    )
    assert tuple(loader.num_clips for loader in loaders) == counts

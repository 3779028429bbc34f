"""Exports: what is written reads back as what was exported, under safe names."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from data.errors import ExportError, SplitError
from data.export.lists import export
from data.importers.annot_json import read_annot_json
from data.importers.registry import LAYOUTS, recognise
from data.importers.ucf101 import read_ucf101
from data.index.listing import Listing
from data.index.records import ClipRecord, Index, ListedClip, Measurement, Subset, make_index

from ..importers.trees import frames, lay_out

OK = Measurement(status="ok", n_frames=3, width=8, height=6)


def indexed(listing: Listing, **broken: Measurement) -> Index:
    """Return the index of a listing as if every clip had been decoded."""
    names = [field.name for field in fields(ListedClip)]
    clips = [
        ClipRecord(**{name: getattr(clip, name) for name in names}, measured=broken.get(clip.class_name, OK))
        for clip in listing.clips
    ]
    return make_index(name="x", class_names=listing.class_names, clips=clips)


@pytest.fixture
def videos(tmp_path: Path) -> tuple[Index, Path]:
    """A set in the layout of UCF101 with two splits and names that tools trip over."""
    root = tmp_path / "videos of mine"
    a, b = "air drumming/v_a b;c_g01_c01.avi", "air drumming/v_a b&c_g02_c01.avi"
    c = "Run/v_Run_g01_c01.avi"
    lists = {
        "classInd.txt": "1 air drumming\n2 Run\n",
        "trainlist01.txt": f"{a} 1\n{c} 2\n",
        "testlist01.txt": f"{b}\n",
        "trainlist02.txt": f"{b} 1\n",
        "testlist02.txt": f"{a}\n{c}\n",
    }
    lay_out(root, lists, [a, b, c])
    return indexed(read_ucf101(root)), root


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Index, Path]:
    """A set of frames with flow."""
    root = tmp_path / "frames"
    content: dict[str, dict[str, Any]] = {
        "labels": {"1": "Run", "2": "Walk"},
        "training": {"v_Run_g01_c01": {"label": 1}, "v_Walk_g01_c01": {"label": 2}},
        "validation": {"v_Walk_g02_c01": {"label": 2}},
    }
    clips = [*content["training"], *content["validation"]]
    empty = [
        n for p in ("images", "flows/u", "flows/v") for c in clips for n in frames(f"{p}/{c}", name="frame%06d.jpg")
    ]
    lay_out(root, {"annotations/annot01.json": json.dumps(content)}, empty)
    return indexed(read_annot_json(root)), root


def told(listing: Listing | Index) -> set[tuple[Any, ...]]:
    """Return what an export must keep: the safe name, label, groups and sides of every clip."""
    return {(clip.label, clip.official, clip.group.rpartition("/")[2]) for clip in listing.clips}


@pytest.mark.parametrize("form", ["ucf101", "path_lists"])
def test_exported_videos_can_be_imported(videos: tuple[Index, Path], tmp_path: Path, form: Any) -> None:
    index, root = videos
    out = tmp_path / "out"
    written = export(index, root, out, form)
    assert recognise(out) == form
    listing = LAYOUTS[form].read(out)
    assert listing.class_names == ("air_drumming", "Run")
    assert told(listing) == told(index)
    assert written.clips == len(listing.clips) == 3
    originals = {(out / clip.path).resolve() for clip in listing.clips}
    assert originals == {(root / clip.path).resolve() for clip in index.clips}
    assert not any(set(" ;&") & set(str(path.relative_to(out))) for path in out.rglob("*"))
    assert all(path.is_file() for path in written.lists)


@pytest.mark.parametrize("form", ["annot_json", "path_lists", "frame_lists"])
def test_exported_frames_can_be_imported(folders: tuple[Index, Path], tmp_path: Path, form: Any) -> None:
    index, root = folders
    out = tmp_path / "out"
    export(index, root, out, form)
    assert recognise(out) == form
    listing = LAYOUTS[form].read(out)
    assert listing.class_names == ("Run", "Walk")
    assert told(listing) == told(index)
    for clip in listing.clips:
        assert (out / clip.path / (clip.frame_name % 3)).is_file()
        if form == "annot_json":
            assert clip.flow is not None
            assert (out / (clip.flow.x % 1)).is_file()
            assert (out / (clip.flow.y % 1)).is_file()


def test_the_json_agrees_with_the_lists(videos: tuple[Index, Path], tmp_path: Path) -> None:
    index, root = videos
    written = export(index, root, tmp_path / "out", "annot_json")
    content = json.loads((tmp_path / "out" / "annotations" / "annot02.json").read_text())
    assert content["labels"] == {"1": "air_drumming", "2": "Run"}
    assert content["training"] == {"v_a_b_c_g02_c01": {"set": "training", "label": 1, "nframes": 3}}
    assert content["validation"]["v_Run_g01_c01"] == {"set": "validation", "label": 2, "nframes": 3}
    (note,) = written.notes
    assert note.startswith("the lists count the frames of 3 videos; `hpo data extract ")
    assert note.endswith(" --naming annot_json` writes them")


def test_equal_safe_names_are_made_unique(tmp_path: Path) -> None:
    names = ["Run/a b_g01_c01.avi", "Run/a;b_g01_c01.avi"]
    lists = {"classInd.txt": "1 Run\n", "trainlist01.txt": "".join(f"{name} 1\n" for name in names)}
    index = indexed(read_ucf101(lay_out(tmp_path / "in", lists, names)))
    export(index, tmp_path / "in", tmp_path / "out", "path_lists")
    lines = (tmp_path / "out" / "annotations" / "train_split_1_videos.txt").read_text().splitlines()
    assert len({line.lower() for line in lines}) == 2
    assert len(list((tmp_path / "out" / "videos" / "Run").iterdir())) == 2


def test_segments_keep_their_frames(folders: tuple[Index, Path], tmp_path: Path) -> None:
    index, root = folders
    cut = [replace(clip, start=1, end=3, measured=replace(OK, n_frames=2)) for clip in index.clips]
    part = replace(index, clips=tuple(cut))
    for form in ("frame_lists", "path_lists"):
        export(part, root, tmp_path / form, form)
        assert {(clip.start, clip.end) for clip in LAYOUTS[form].read(tmp_path / form).clips} == {(1, 3)}
    with pytest.raises(ExportError, match="annot_json cannot say which part"):
        export(part, root, tmp_path / "json", "annot_json")


def test_a_separate_validation_list_is_written_where_it_fits(folders: tuple[Index, Path], tmp_path: Path) -> None:
    index, root = folders
    sides: tuple[Subset, ...] = ("train", "validation", "test")
    three = [replace(clip, official=((1, side),)) for clip, side in zip(index.clips, sides, strict=True)]
    export(replace(index, clips=tuple(three)), root, tmp_path / "a", "frame_lists")
    listing = LAYOUTS["frame_lists"].read(tmp_path / "a")
    assert sorted(clip.official[0][1] for clip in listing.clips) == sorted(sides)
    written = export(replace(index, clips=tuple(three)), root, tmp_path / "b", "annot_json")
    assert "1 entries of official validation lists have no place in this layout" in written.notes


def test_broken_clips_are_left_out(videos: tuple[Index, Path], tmp_path: Path) -> None:
    _, root = videos
    index = indexed(read_ucf101(root), Run=Measurement(status="empty"))
    assert export(index, root, tmp_path / "out", "ucf101").clips == 2
    assert "Run" not in (tmp_path / "out" / "annotations" / "ucf101_splits" / "trainlist01.txt").read_text()
    assert "2 Run" in (tmp_path / "out" / "annotations" / "ucf101_splits" / "classInd.txt").read_text()


def test_exporting_again_replaces_links_and_spares_files(videos: tuple[Index, Path], tmp_path: Path) -> None:
    index, root = videos
    out = tmp_path / "out"
    assert export(index, root, out, "ucf101") == export(index, root, out, "ucf101")
    own = next((out / "videos" / "Run").iterdir())
    own.unlink()
    own.write_text("a person's own file")
    with pytest.raises(ExportError, match="exists and is not a link"):
        export(index, root, out, "ucf101")


def test_clips_that_cannot_be_written_are_reported(
    videos: tuple[Index, Path], folders: tuple[Index, Path], tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="ucf101 holds video only, not frames"):
        export(*folders, tmp_path / "out", "ucf101")
    with pytest.raises(ExportError, match="no export is called 'csv'; known: ucf101"):
        export(*videos, tmp_path / "out", "csv")  # type: ignore[arg-type]  # the mistake
    with pytest.raises(SplitError, match=r"no split 3; its lists describe \[1, 2\]"):
        export(*videos, tmp_path / "out", "frame_lists", split=3)
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match="cannot be written to"):
        export(*videos, tmp_path / "file", "ucf101")

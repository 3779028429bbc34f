"""Frames and flow as images for other tools: named as they expect, complete or not there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import data.export.frames
from data import DatasetSpec, Index, scan
from data.errors import CacheError, InvalidSpecError
from data.export.frames import extract
from data.export.lists import export
from data.index.records import make_index
from data.preparation.prepare import prepare
from data.synthetic.dataset import write_video
from tests.unit.data.encoded import index_of, listed, moving

from ..encoded import decode_video


@pytest.fixture(scope="module")
def index(tiny_root: Path) -> Index:
    whole = scan(tiny_root)
    return make_index(name=whole.name, class_names=whole.class_names, clips=whole.clips[::6])


def spec_of(root: Path, **changes: Any) -> DatasetSpec:
    return DatasetSpec(**{"name": "ucf101", "root": root, "short_side": 32, "flow": "dis", **changes})


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != ".lock"
    }


NAMES = {
    "tsn": ("{id}/img_00020.jpg", "{id}/flow_x_00019.jpg", "{id}/flow_y_00019.jpg"),
    "annot_json": ("images/{stem}/frame000020.jpg", "flows/u/{stem}/frame000019.jpg", "flows/v/{stem}/frame000019.jpg"),
    "ibm": ("{id}/00020.jpg", "{id}/00019_x.jpg", "{id}/00019_y.jpg"),
}


@pytest.mark.parametrize("naming", NAMES)
def test_images_are_the_frames_and_their_flow(index: Index, tiny_root: Path, tmp_path: Path, naming: str) -> None:
    spec = spec_of(tiny_root)
    assert extract(index, spec, tmp_path / "out", naming=naming) == 4
    flow = prepare(index, spec, tmp_path / "cache")["flow"]
    for clip in index.clips:
        frame, x, y = (
            cv2.imread(str(tmp_path / "out" / name.format(id=clip.id, stem=clip.id.rpartition("/")[2])), flags)
            for name, flags in zip(NAMES[naming], (cv2.IMREAD_COLOR, *[cv2.IMREAD_GRAYSCALE] * 2), strict=True)
        )
        assert frame is not None
        assert x is not None
        assert y is not None
        expected = decode_video(tiny_root / clip.path, short_side=32)[19]
        assert np.abs(frame[..., ::-1].astype(int) - expected).mean() < 4
        assert np.abs(np.stack([x, y], axis=-1).astype(int) - flow.video(clip.id)[18]).mean() < 2
    images = [name for name in files(tmp_path / "out") if name.endswith(".jpg")]
    assert len(images) == sum(3 * clip.n_frames - 2 for clip in index.clips)
    assert not list((tmp_path / "out").rglob("*.part"))


def test_extracted_folders_are_a_data_set_with_listed_flow(index: Index, tiny_root: Path, tmp_path: Path) -> None:
    extract(index, spec_of(tiny_root), tmp_path, naming="tsn")
    again = scan(tmp_path, name="class_folders")
    assert [(clip.class_name, clip.n_frames, clip.measured.status) for clip in again.clips] == [
        (clip.class_name, clip.n_frames, "ok") for clip in index.clips
    ]
    listed = prepare(again, spec_of(tmp_path, flow="listed"), tmp_path / "cache")["flow"]
    computed = prepare(index, spec_of(tiny_root), tmp_path / "cache")["flow"]
    for clip, before in zip(again.clips, index.clips, strict=True):
        assert np.abs(listed.video(clip.id).astype(int) - computed.video(before.id)).mean() < 2


@pytest.mark.parametrize("naming", NAMES)
def test_a_stopped_extraction_resumes_and_gives_the_same_files(
    index: Index, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, naming: str
) -> None:
    spec = spec_of(tiny_root)
    extract(index, spec, tmp_path / "straight", naming=naming)
    steps = 0

    def stopping(work: Callable[..., Any], last: int) -> Callable[..., Any]:
        def step(*arguments: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps >= last:
                raise KeyboardInterrupt
            return work(*arguments)

        return step

    for owner, name, last in (
        *((data.export.frames, "encode_jpeg", last) for last in (1, 30, 100, 150)),
        *((Path, "rename", last) for last in (1, 2, 3)),
    ):
        steps = 0
        monkeypatch.setattr(owner, name, stopping(getattr(owner, name), last))
        with suppress(KeyboardInterrupt):
            extract(index, spec, tmp_path / "stopped", naming=naming)
        assert steps > 0
        monkeypatch.undo()
    extract(index, spec, tmp_path / "stopped", naming=naming)
    assert files(tmp_path / "stopped") == files(tmp_path / "straight")


def test_existing_images_are_not_written_again(
    index: Index, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int, int]] = []
    extract(index, spec_of(tiny_root), tmp_path, naming="tsn", progress=lambda *step: told.append(step))
    assert told == [("extract", n, 4) for n in (1, 2, 3, 4)]
    monkeypatch.setattr(data.export.frames, "encode_jpeg", None)
    assert extract(index, spec_of(tiny_root), tmp_path, naming="tsn") == 4


def test_another_set_or_other_settings_need_another_folder(index: Index, tiny_root: Path, tmp_path: Path) -> None:
    extract(index, spec_of(tiny_root, flow="none"), tmp_path, naming="tsn")
    for changes in ({"short_side": 16, "flow": "none"}, {}):
        with pytest.raises(CacheError, match="of other settings; name a new folder"):
            extract(index, spec_of(tiny_root, **changes), tmp_path, naming="tsn")


def test_an_unknown_naming_and_a_file_as_folder_are_reported(index: Index, tiny_root: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidSpecError, match="naming is 'mine'; it must be one of"):
        extract(index, spec_of(tiny_root), tmp_path, naming="mine")
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="file cannot be filled"):
        extract(index, spec_of(tiny_root), tmp_path / "file", naming="tsn")


@pytest.mark.parametrize("naming", NAMES)
@pytest.mark.parametrize("ids", [("a/x", "b/x"), ("a", "a/x"), ("../x", "y"), ("a/..", "a/."), ("a/x y", "a/X;Y")])
def test_clips_never_share_or_leave_their_folder(tmp_path: Path, ids: tuple[str, str], naming: str) -> None:
    write_video(tmp_path / "v.avi", moving(4, 32, 32))
    index = index_of(tmp_path, *(listed("v.avi", id=id_) for id_ in ids))
    (tmp_path / "around").mkdir()
    out = tmp_path / "around" / "out"
    extract(index, DatasetSpec(name="ucf101", root=tmp_path, short_side=32), out, naming=naming)
    images = [path for path in out.rglob("*.jpg")]
    assert len({str(path.parent).lower() for path in images}) == 2
    assert len(images) == 8
    assert [path.name for path in (tmp_path / "around").iterdir()] == ["out"]


@pytest.mark.parametrize(("naming", "form"), [("annot_json", "annot_json"), ("ibm", "frame_lists")])
def test_extracted_frames_and_exported_lists_fit_each_other(
    index: Index, tiny_root: Path, tmp_path: Path, naming: str, form: Any
) -> None:
    extract(index, spec_of(tiny_root), tmp_path, naming=naming)
    export(index, tiny_root, tmp_path, form, split=2)
    again = scan(tmp_path)
    assert again.name == form
    split = 2 if form == "annot_json" else 1
    assert {(c.label, c.group, c.subset(split), c.n_frames, c.flow is not None) for c in again.usable} == {
        (c.label, c.group, c.subset(2), c.n_frames, True) for c in index.usable
    }

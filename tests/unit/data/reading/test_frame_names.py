"""Which pictures of a folder are frames, which are flow, and how they count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data.errors import DatasetFormatError
from data.flow.compute import listed_flow
from data.importers.class_folders import read_class_folders
from data.reading.clip_frames import clip_frames, frame_files
from data.reading.media import frame_names, holds_frames
from data.scanning.scan import scan
from tests.unit.data.encoded import moving, write_frames
from tests.unit.data.importers.trees import by_id, lay_out

STYLES = {
    "unpadded": "frame%d.png",
    "four digits": "%04d.png",
    "five digits": "%05d.png",
    "a prefix": "img_%05d.png",
    "another format": "img_%05d.bmp",
    "a percent sign": "100%%_%03d.png",
}


@pytest.mark.parametrize("first_style", STYLES)
def test_every_folder_has_its_own_names(tmp_path: Path, first_style: str) -> None:
    """The first folder's names do not decide how those of others are read."""
    pictures = moving(13, 16, 24)
    for style, name in STYLES.items():
        folder = f"{'a' if style == first_style else 'b'} {style}"
        write_frames(tmp_path / "Run" / folder, pictures, name=name, first=10 if style == first_style else 1)
    index = scan(tmp_path, name="class_folders")
    assert {clip.measured.status for clip in index.clips} == {"ok"}
    for clip in index.clips:
        np.testing.assert_array_equal(np.stack(list(clip_frames(clip, tmp_path))), pictures)


@pytest.mark.parametrize("extra", ["folder.jpg", "thumb.jpg", "img_00003 (1).jpg", "img_00003 - Copy.jpg", "page2.png"])
def test_other_pictures_are_no_frames(tmp_path: Path, extra: str) -> None:
    pictures = moving(6, 16, 24)
    folder = tmp_path / "Run" / "a"
    write_frames(folder, pictures, name="img_%05d.jpg")
    plain = frame_files(by_id(read_class_folders(tmp_path))["Run/a"], tmp_path)
    (folder / extra).write_bytes(plain[0].read_bytes())
    listing = read_class_folders(tmp_path)
    assert frame_files(by_id(listing)["Run/a"], tmp_path) == plain
    assert any(f"are no frames, e.g. Run/a/{extra}" in note for note in listing.notes)


def test_two_series_of_one_length_are_not_mixed(tmp_path: Path) -> None:
    for name in ("left_%03d.png", "right_%03d.png"):
        write_frames(tmp_path / "Run" / "a", moving(4, 16, 24), name=name)
    (clip,) = scan(tmp_path, name="class_folders").clips
    assert clip.measured.status == "corrupt"
    assert "left_001.png and right_001.png are two frames of one number" in clip.measured.note


FLOW = {
    "TSN": ("img_%05d.png", "flow_x_%05d.png", "flow_y_%05d.png"),
    "short": ("img_%05d.png", "x_%05d.png", "y_%05d.png"),
    "IBM": ("%05d.png", "%05d_x.png", "%05d_y.png"),
    "dashes": ("img-%05d.png", "x-%05d.png", "flow-y_%05d.png"),
    "after the number": ("img_%05d.png", "img_%05d_flow_x.png", "img_%05d_flow-y.png"),
    "capitals": ("IMG_%05d.png", "X_%05d.png", "FLOW_Y_%05d.png"),
    "u and v": ("frame%04d.png", "u_%04d.png", "v_%04d.png"),
    "unpadded": ("frame%d.png", "flow_x_%d.png", "flow_y_%d.png"),
}


@pytest.mark.parametrize("names", FLOW.values(), ids=FLOW)
@pytest.mark.parametrize("first_frame", [0, 1])
@pytest.mark.parametrize("first_flow", [0, 1])
def test_frames_and_flow_count_on_their_own(
    tmp_path: Path, names: tuple[str, str, str], first_frame: int, first_flow: int
) -> None:
    """Each field is the one from its frame to the next, whatever the numbers begin with."""
    pictures, folder = moving(12, 16, 24), tmp_path / "Run" / "a"
    write_frames(folder, pictures, name=names[0], first=first_frame)
    fields = np.arange(11, dtype=np.uint8)[:, None, None, None] * np.full((1, 16, 24, 3), 20, np.uint8)
    for name in names[1:]:
        write_frames(folder, fields, name=name, first=first_flow)
    (clip,) = scan(tmp_path, name="class_folders").clips
    assert (clip.measured.status, clip.n_frames) == ("ok", 12)
    np.testing.assert_array_equal(np.stack(list(clip_frames(clip, tmp_path))), pictures)
    flow = [field[0, 0].tolist() for field in listed_flow(clip, tmp_path, short_side=None, starts=range(11))]
    assert flow == [[20 * n, 20 * n] for n in range(11)]


@pytest.mark.parametrize("first", [(2, 2), (0, 1), (3, 3)])
def test_flow_that_lacks_its_first_images_costs_its_clip_only(tmp_path: Path, first: tuple[int, int]) -> None:
    for folder, begins in ((tmp_path / "Run" / "a", first), (tmp_path / "Run" / "b", (1, 1))):
        write_frames(folder, moving(8, 16, 24))
        for name, number in zip(("flow_x_%05d.png", "flow_y_%05d.png"), begins, strict=True):
            write_frames(folder, moving(7, 16, 24), name=name, first=number)
    damaged, sound = scan(tmp_path, name="class_folders").clips
    assert (sound.id, sound.measured.status) == ("Run/b", "ok")
    assert damaged.measured.status == "truncated"
    assert "its flow has 0 pairs of images for 8 frames" in damaged.measured.note


@pytest.mark.parametrize("prefix", ["v_", "x_", "y_", "u_"])
@pytest.mark.parametrize("extra", [(), ("folder.png",)])
def test_one_axis_without_the_other_is_no_flow(tmp_path: Path, prefix: str, extra: tuple[str, ...]) -> None:
    lay_out(tmp_path, empty=[f"{prefix}{number:05d}.jpg" for number in range(1, 5)] + list(extra))
    names = frame_names(tmp_path)
    assert (names.frame, names.flow_x, names.extra) == (f"{prefix}%05d.jpg", "", extra)


def test_flow_of_one_axis_alone_is_not_taken_for_frames(tmp_path: Path) -> None:
    lay_out(tmp_path, empty=[f"flow_x_{number:05d}.jpg" for number in range(1, 5)])
    with pytest.raises(DatasetFormatError, match="mixes flow images"):
        frame_names(tmp_path)


@pytest.mark.parametrize("extra", ["folder.jpg", "poster image.png"])
def test_flow_beside_one_picture_without_a_number_is_refused(tmp_path: Path, extra: str) -> None:
    flow = [f"{axis}_{number:05d}.jpg" for axis in ("flow_x", "flow_y") for number in range(1, 5)]
    lay_out(tmp_path, empty=[*flow, extra])
    with pytest.raises(DatasetFormatError, match="or has no frames; put frames and flow into two folders"):
        frame_names(tmp_path)


@pytest.mark.parametrize("n_videos", [2, 60])
def test_pictures_and_videos_are_all_counted(tmp_path: Path, n_videos: int) -> None:
    lay_out(tmp_path, empty=[*(f"{n}.jpg" for n in range(50)), *(f"v{n}.mp4" for n in range(n_videos))])
    assert holds_frames(tmp_path) == (n_videos < 50)


def test_a_picture_makes_no_folder_of_frames_out_of_a_class(tmp_path: Path) -> None:
    lay_out(tmp_path, empty=["Run/00.jpg", *(f"Run/{n}.mp4" for n in range(5)), "Walk/folder.jpg", "Walk/b.avi"])
    assert not holds_frames(tmp_path / "Run")
    listing = read_class_folders(tmp_path)
    assert {clip.kind for clip in listing.clips} == {"video"}
    assert any(
        "2 pictures or deeper files beside clips are not used, e.g. Run/00.jpg" in note for note in listing.notes
    )


@pytest.mark.parametrize("name", ["img_%05d.png", "%d.png"])
@pytest.mark.parametrize("step", [2, 5])
def test_every_kth_frame_is_a_clip_and_a_hole_in_it_is_noticed(tmp_path: Path, name: str, step: int) -> None:
    pictures, folder = moving(9, 16, 24), tmp_path / "Run" / "a"
    for number, picture in enumerate(pictures):
        write_frames(folder, picture[None], name=name, first=1 + number * step)
    (clip,) = scan(tmp_path, name="class_folders").clips
    assert (clip.measured.status, clip.n_frames) == ("ok", 9)
    absent = name % (1 + 4 * step)
    (folder / absent).unlink()
    (clip,) = scan(tmp_path, name="class_folders").clips
    assert clip.measured.status == "truncated"
    assert f"frame {absent} is missing" in clip.measured.note

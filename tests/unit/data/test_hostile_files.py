"""Files that were put there to stop a worker, or to be read aloud by it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from data import errors
from data.errors import DatasetError, DatasetFormatError, VideoError, hide_contents
from data.importers.registry import importer
from data.index import groups
from data.index.listing import Listing, read_text
from data.index.records import ListedClip
from data.reading.clip_frames import read_file
from data.reading.video import decode_frames

CONTENT = "root:$6$private"


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """A named pipe, of which a reader never gets anything."""
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def test_a_pipe_is_not_waited_for(pipe: Path) -> None:
    for read, error in ((read_text, DatasetFormatError), (read_file, VideoError)):
        with pytest.raises(error, match="pipe is a pipe or a device"):
            read(pipe)
    with pytest.raises(VideoError, match="pipe is a pipe or a device"):
        list(decode_frames(pipe))


def _listing(*ids: str) -> Listing:
    return Listing(
        class_names=("a",),
        clips=tuple(ListedClip(id=id_, path=id_, label=0, class_name="a", group=id_, official=()) for id_ in ids),
    )


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"g(\d+)", ["01", "02", "none"]),
        (r"(v)_(g)?", ["v/g", "v/g", "none"]),
        (r"g\d", ["g0", "g0", "none"]),
    ],
)
def test_a_pattern_finds_groups(pattern: str, expected: list[str]) -> None:
    found = groups.regroup(_listing("v_g01", "v_g02", "none"), pattern)
    assert [clip.group for clip in found.clips] == expected


def test_a_pattern_that_would_search_for_ever_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "PATTERN_SECONDS", 0.5)
    before = threading.active_count()
    with pytest.raises(DatasetFormatError, match=r"takes more than 0\.5 s on 1 ids: write it without repetitions"):
        groups.regroup(_listing("a" * 60 + "!"), r"^(a+)+$")
    assert threading.active_count() == before


@pytest.fixture
def hidden() -> Iterator[None]:
    """The process of a worker's trial, until the test is over."""
    hide_contents()
    yield
    errors._quoting["is_on"] = True


LISTS = {
    "path_lists": {"train.txt": CONTENT},
    "frame_lists": {"train.txt": CONTENT},
    "ucf101": {"trainlist01.txt": CONTENT, "classInd.txt": "1 Run"},
    "hmdb51": {"Run_test_split1.txt": CONTENT},
    "kinetics": {"train.csv": f"label,youtube_id,time_start,time_end\nRun,{CONTENT},0,1"},
    "something": {
        "something-something-v2-train.json": f'[{{"id": "{CONTENT}/..", "template": "x"}}]',
        "something-something-v2-labels.json": '{"x": 0}',
    },
}


def _problem(root: Path, layout: str) -> str:
    (root / "Run").mkdir(parents=True)
    for name, text in LISTS[layout].items():
        (root / name).write_text(text)
    with pytest.raises(DatasetError) as caught:
        importer(layout)(root)
    return str(caught.value)


@pytest.mark.parametrize("layout", LISTS)
def test_a_person_sees_which_line_is_wrong(layout: str, tmp_path: Path) -> None:
    assert CONTENT in _problem(tmp_path / "set", layout)


@pytest.mark.usefixtures("hidden")
@pytest.mark.parametrize("layout", LISTS)
def test_readers_of_a_study_do_not_see_what_files_hold(layout: str, tmp_path: Path) -> None:
    problem = _problem(tmp_path / "set", layout)
    assert CONTENT not in problem
    assert "what it says" in problem


def test_long_lines_are_not_quoted_whole() -> None:
    assert len(errors.quoted("x" * 10_000)) < 110

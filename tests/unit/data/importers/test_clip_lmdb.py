"""IBM's databases with one clip in each value, as `pyarrow.serialize` wrote them."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from data import scan
from data.errors import DatasetFormatError
from data.importers.frame_lmdb import read_frame_lmdb
from data.importers.registry import recognise
from data.index.listing import Listing
from data.reading.clip_frames import clip_frames
from data.reading.images import decode_image
from data.reading.serialized import read_frames, read_label, read_names
from tests.unit.data.clip_databases import write
from tests.unit.data.encoded import moving, write_frames

from .trees import by_id, lay_out, sides

MADE_BY_PYARROW_11 = {
    b"clip": (
        "c-n<iF-`+95M19m+$mU*iwIqjA|(aI5%GX~0uP{|Nf9ZKf|K9@Jb;2n@DR#8AO%lBn6bU*nAM4FWXHQZJG<-k5&abh`A|eQXj3wD"
        "MiZ)Wf+!80pw-wl?=bWK=Z|yHW)03uwiQ@609>-Z-8}W4>dggg!VvS+(Qf8AHyOWW-1Um+8+qD@n=N3wVqA&!j&<jAvTf6^A1Ku9"
        "JBgJKdCM%X=YEZx+UJ^c{NVR|y}z4?DLiH&Fe}beQ^k2mb=baQj2h!@vG(v=cxqHwg&Vef|1qW+iP7N~=k=l@uNOlXJTViPsMI0;"
        "K23NE-Gu4+neO>+RrUtXv-4o*eo`G)yc;WUjleGjt`+gE@OQ%BrT(Jarf!Z>i9W_e`t=EXaY7%<7v5}9D2Y?ztq(HE`f!Kc<Juki"
        "=iTvp{I9-W__jog"
    ),
    b"__keys__": (
        "c-oCoI}XAy40TF?f+Cawp^hCpg2cecz`zk$0Wnkp2?>tEAs9FShu{btgbiL2r-V=mTqW`6+0V6!KIIA73nFc;E-7kJlTv69Az>4&"
        "6u0CXZhlQNtX>8+XJ3Nzz$w_?mWQK(o*cHq5Z9SGzv@HJg8G_qqao1*m~FsS1Y8T8A=~9~vm@KD`3u)|9p}~6l7^%2|Ak{?oHOEg"
        "hY@uc!*@emBa(utZKtGphAt<o$&vPZ&wVajZ6k^XJb7iSQA64q(`r*)*vf9f?B>EV62UGzf$se&zn)h|`_~aJ<JZqCkK#p?UsU}&"
        "nM8a>T2Y^M633Gt_~b{v#|ZI_5kY^;RlfH7pg-gVwBtDZ"
    ),
}
"""Values of pyarrow 11: `(2, b"\\xff\\xd8one", b"\\xff\\xd8two", 1)` and `[b"a", b"b c"]`, packed."""


def jpegs(n_frames: int, seed: int) -> list[bytes]:
    return [cv2.imencode(".jpg", frame)[1].tobytes() for frame in moving(n_frames, 16, 24, seed=seed)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes; four clips to train, two to validate."""
    for side, count in (("train", 4), ("val", 2)):
        clips = {f"{side}{n}": (5, *jpegs(5, n), n % 2) for n in range(count)}
        write(tmp_path / f"{side}.lmdb", clips)
    return tmp_path


def listed(side: str, count: int) -> str:
    return "".join(f"{('Run', 'Walk')[n % 2]}/{side}{n} 1 5 {n % 2}\n" for n in range(count))


LISTS = {"train.txt": listed("train", 4), "val.txt": listed("val", 2)}


def read(root: Path) -> Listing:
    assert recognise(root) == "lmdb"
    return read_frame_lmdb(root)


def test_values_of_pyarrow_itself_are_read(tmp_path: Path) -> None:
    path = tmp_path / "train.lmdb"
    write(path, {})
    with lmdb.open(str(path), subdir=False, lock=False) as database, database.begin(write=True) as transaction:
        for key, packed in MADE_BY_PYARROW_11.items():
            transaction.put(key, zlib.decompress(base64.b85decode(packed)))
    assert read_names(path) == ["a", "b c"]
    assert read_label(path, "clip") == (2, 1)
    assert read_frames(path, "clip", 0, None) == [b"\xff\xd8one", b"\xff\xd8two"]
    assert read_frames(path, "clip", 1, 2) == [b"\xff\xd8two"]


@pytest.mark.parametrize("with_lists", [True, False])
def test_clips_are_those_of_the_databases(root: Path, with_lists: bool) -> None:
    lay_out(root, LISTS if with_lists else {})
    listing = read(root)
    names = ("Run", "Walk") if with_lists else ("0", "1")
    assert listing.class_names == names
    folders = {0: "Run/", 1: "Walk/"} if with_lists else {0: "", 1: ""}
    assert sides(listing) == {
        f"{folders[n % 2]}{side}{n}": {"train": "train", "val": "test"}[side]
        for side, count in (("train", 4), ("val", 2))
        for n in range(count)
    }
    index = scan(root)
    assert index.status_counts() == {"ok": 6}
    clip = by_id(listing)[f"{folders[1]}train1"]
    assert (clip.path, clip.member, clip.label) == ("train.lmdb", "train1", 1)
    expected = [decode_image(image, "a frame") for image in jpegs(5, 1)]
    assert np.array_equal(list(clip_frames(clip, root)), expected)


def test_what_is_missing_or_cut_costs_itself_only(root: Path) -> None:
    (root / "train.lmdb").unlink()
    clips = {"train0": (5, *jpegs(5, 0), 0), "train1": (9, *jpegs(5, 1), 1), "train2": b"\x01" * 40}
    write(root / "train.lmdb", clips, keys=[*clips, "train3"])
    lay_out(root, LISTS)
    found = {clip.member: (clip.measured.status, clip.measured.note) for clip in scan(root).clips}
    assert found["train0"] == ("ok", "")
    assert found["train1"] == ("truncated", f"{root}/train.lmdb:train1 has 5 of its 9 frames")
    assert found["train2"][0] == "corrupt"
    assert "train2 is no value of pyarrow.serialize" in found["train2"][1]
    assert found["train3"][0] == "missing"
    (root / "train.txt").unlink()
    assert any(
        note.startswith(f"2 clips of {root}/train.lmdb have no label without a list") and "train2 is no value" in note
        for note in read(root).notes
    )


def test_labels_that_are_not_those_of_the_list_are_refused(root: Path) -> None:
    lay_out(root, LISTS | {"val.txt": "Run/val0 1 5 0\nRun/val1 1 5 0\n"})
    with pytest.raises(DatasetFormatError, match=r"val\.txt:2: 'Run/val1' has label 0 here and 1 in .*val\.lmdb"):
        read(root)
    lay_out(root, LISTS | {"val.txt": "Run/val0 1 5 0\nWalk/val0 1 5 0\n"})
    with pytest.raises(DatasetFormatError, match=r"val\.txt:2: 'Walk/val0' ends as the path in line 1"):
        read(root)


@pytest.mark.parametrize("with_list", [True, False])
def test_a_side_without_labels_is_left_out(root: Path, with_list: bool) -> None:
    write(root / "test.lmdb", {f"test{n}": (4 + n, *jpegs(4 + n, n), 4 + n) for n in range(2)})
    lay_out(root, {**LISTS, "test.txt": "test0 1 4\ntest1 1 5\n"} if with_list else {})
    listing = read(root)
    assert "2 listed clips have no label and are left out" in listing.notes
    assert set(sides(listing).values()) == {"train", "test"}


def test_frames_beside_their_databases_are_read_instead(root: Path) -> None:
    lay_out(root, LISTS)
    write_frames(root / "Run" / "train0", moving(5, 16, 24), name="%05d.jpg")
    assert recognise(root) == "frame_lists"

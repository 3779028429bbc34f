"""The seal of test lists: which list it is, and what the local record says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data.errors import CacheError
from data.index.records import ListedClip
from data.index.seal import SealLog, digest_of_test_list

KNOWN: dict[str, Any] = {"test_list": "a" * 32, "version": "v", "split": 1}


def _listed(id_: str, side: Any, *, split: int = 1, of: str = "Run") -> ListedClip:
    return ListedClip(id=id_, path=f"/anywhere/{id_}.avi", class_name=of, label=0, group=id_, official=((split, side),))


def test_the_list_is_its_videos_and_their_classes_and_nothing_else() -> None:
    clips = [_listed("a", "test"), _listed("b", "test"), _listed("c", "train")]
    same = digest_of_test_list(clips, 1)
    assert len(same) == 32
    assert digest_of_test_list(reversed(clips), 1) == same
    assert digest_of_test_list([*clips, _listed("d", "train")], 1) == same, "another train video seals nothing again"
    for other in (
        [*clips, _listed("d", "test")],
        clips[1:],
        [_listed("a", "test", of="Walk"), *clips[1:]],
    ):
        assert digest_of_test_list(other, 1) != same
    assert digest_of_test_list([_listed(clip.id, clip.subset(1), split=2) for clip in clips], 2) != same


def test_openings_of_a_list_are_found_with_their_scores(tmp_path: Path) -> None:
    log = SealLog(tmp_path / "unsealed.jsonl")
    assert log.openings(**KNOWN) == []
    log.append({"id": "1", **KNOWN})
    log.append({"id": "2", **KNOWN, "test_list": "b" * 32})
    log.append({"id": "3", **KNOWN, "version": "files were added"})
    log.append({"id": "1", "score": {"top1": 0.5}})
    log.append({"id": "2", "score": {"top1": 0.25}})
    assert [(one["id"], one.get("score")) for one in log.openings(**KNOWN)] == [("1", {"top1": 0.5}), ("3", None)]


def test_openings_of_earlier_releases_are_known_by_version_and_split(tmp_path: Path) -> None:
    log = SealLog(tmp_path / "unsealed.jsonl")
    old = {"time": 1.0, "clips": 4, "reason": "r"}
    for version, split in (("v", 1), ("v", 2), ("w", 1)):
        log.append({**old, "version": version, "split": split})
    log.append({**old, "version": "v", "split": 1, "reason": "again"})
    assert [one["reason"] for one in log.openings(**KNOWN)] == ["r", "again"]


def test_openings_of_earlier_releases_of_another_version_are_guessed_by_their_number_of_clips(tmp_path: Path) -> None:
    log = SealLog(tmp_path / "unsealed.jsonl")
    for version, split, clips in (("w", 1, 4), ("w", 1, 5), ("w", 2, 4), ("v", 1, 4)):
        log.append({"time": 1.0, "version": version, "split": split, "clips": clips, "reason": f"{version}{clips}"})
    log.append({"id": "1", **KNOWN, "test_list": "b" * 32, "clips": 4, "reason": "another list"})
    found = log.openings(**KNOWN, clips=4)
    assert [(one["reason"], one.get("perhaps", False)) for one in found] == [("w4", True), ("v4", False)]


def test_a_line_that_was_cut_by_a_kill_hides_no_other(tmp_path: Path) -> None:
    log = SealLog(tmp_path / "unsealed.jsonl")
    log.path.write_text('{"id": "0", "spl\n[1]\n')
    log.append({"id": "1", **KNOWN})
    assert [one["id"] for one in log.openings(**KNOWN)] == ["1"]


def test_a_record_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="record of openings"):
        SealLog(tmp_path).openings(**KNOWN)

"""The weights that a trial has kept are found from its checkpoint, or from a copy of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from workers.checkpoints.folder import TrialFolder, Writable, run_of
from workers.checkpoints.snapshots import Snapshot, snapshots_of

from .test_stored import STUDY


def _of(content: bytes) -> Callable[[Writable], None]:
    def write(file: Writable) -> None:
        file.write(content)

    return write


@pytest.fixture
def folder(tmp_path: Path) -> TrialFolder:
    """The folder of a trial of 6 epochs with its best epoch, two others and a resume point."""
    made = TrialFolder.of(tmp_path / "roots", study=STUDY, trial_id=4, attempt=2, run=run_of(STUDY))
    for epoch in (2, 4):
        made.write_nth(_of(b"nth %d" % epoch), epoch=epoch)
    made.write_best(_of(b"best"), epoch=3)
    made.write_resume_point(_of(b"resume"), epoch=6, batch=0)
    return made


def _final(folder: TrialFolder) -> Path:
    return folder.write_final(_of(b"final"))


def _told(found: list[Snapshot]) -> list[tuple[str, int, bytes]]:
    return [(one.name, one.epoch, one.path.read_bytes()) for one in found]


EXPECTED = [("epoch 2", 2, b"nth 2"), ("best", 3, b"best"), ("epoch 4", 4, b"nth 4"), ("last", 6, b"final")]


def test_a_checkpoint_in_its_folder_knows_the_others(folder: TrialFolder) -> None:
    assert _told(snapshots_of(_final(folder), epochs_done=6, roots=[])) == EXPECTED


def test_a_copy_is_known_by_its_content(folder: TrialFolder, tmp_path: Path) -> None:
    copy = Path(shutil.copy(_final(folder), tmp_path / "best.pt"))
    assert _told(snapshots_of(copy, epochs_done=6, roots=[tmp_path / "none", tmp_path / "roots"])) == EXPECTED
    (tmp_path / "best.pt").write_bytes(b"of another trial")
    assert [one.name for one in snapshots_of(copy, epochs_done=6, roots=[tmp_path / "roots"])] == ["last"]


def test_files_of_other_runs_and_links_are_left_out(folder: TrialFolder, tmp_path: Path) -> None:
    final = _final(folder)
    other = TrialFolder(folder.path, attempt=1, run="0123456789ab")
    other.write_best(_of(b"of another run"), epoch=5)
    linked = folder.write_nth(_of(b"away"), epoch=6)
    linked.rename(tmp_path / "away")
    linked.symlink_to(tmp_path / "away")
    assert _told(snapshots_of(final, epochs_done=6, roots=[])) == EXPECTED

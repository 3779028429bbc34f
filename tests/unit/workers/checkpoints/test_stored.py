"""Removing files: ours alone, never through a link, also when others do the same."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import UUID

import pytest

from workers.checkpoints.folder import FileKind, parse_name
from workers.checkpoints.stored import earlier_studies, remove_files, remove_study, stored_studies

STUDY = UUID("0b8f6c1e-6f0c-4d59-9d0a-2f1f6f1b7b11")
OTHER = UUID("1b8f6c1e-6f0c-4d59-9d0a-2f1f6f1b7b11")
DIGEST = "0123456789abcdef"
RUN = "r0b8f6c1e6f0c"
FINAL = f"final-a0001-{DIGEST}.pt"
OURS = {
    f"a0001-e0003-b0000000-{DIGEST}.pt": FileKind.RESUME,
    FINAL: FileKind.FINAL,
    f"best-e0003-a0001-{RUN}-{DIGEST}.pt": FileKind.BEST,
    f"epoch-e0010-a0002-{RUN}-{DIGEST}.pt": FileKind.NTH,
    ".a0001-e0003-b0000000.4711.tmp": FileKind.PARTIAL,
    f".final-a0002-{RUN}.4711.tmp": FileKind.PARTIAL,
    "attempt-0001.log": FileKind.RECORD,
    "metrics.jsonl": FileKind.RECORD,
    "tensorboard/events.out.tfevents.17": FileKind.RECORD,
}
STRANGERS = (
    "notes.txt",
    "model.pt",
    "final-a0001.pt",
    f"final-a0001-{DIGEST}.pt.bak",
    "a1.tmp",
    f"final-a0001-r00000000000f-{DIGEST}.pt",
    "tensorboard/notes.txt",
)


def put(root: Path, name: str, *, study: UUID = STUDY, trial: int = 7, content: bytes = b"12345") -> Path:
    """Write a file into the folder of a trial and return its path."""
    path = root / str(study) / str(trial) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_what_is_there_is_read_with_its_size_and_kind(tmp_path: Path) -> None:
    for name in (*OURS, *STRANGERS):
        put(tmp_path, name)
    (tmp_path / "12" / "7").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    (study,) = stored_studies(tmp_path)
    (trial,) = study.trials
    assert (study.uuid, trial.trial_id, study.bytes) == (STUDY, 7, 5 * len(OURS))
    assert {file.name: file.kind for file in trial.files} == OURS
    attempts = {file.name: file.attempt for file in trial.files if file.kind is FileKind.PARTIAL}
    assert attempts == {".a0001-e0003-b0000000.4711.tmp": 1, f".final-a0002-{RUN}.4711.tmp": 2}
    assert earlier_studies(tmp_path) == ["12"]
    assert stored_studies(tmp_path / "nowhere") == []


def test_a_deleted_study_goes_with_its_folders_and_no_other(tmp_path: Path) -> None:
    for name in OURS:
        put(tmp_path, name)
        put(tmp_path, name, trial=8)
    other = put(tmp_path, FINAL, study=OTHER)
    removed = remove_study(tmp_path, STUDY)
    assert (removed.files, removed.bytes, removed.left) == (2 * len(OURS), 10 * len(OURS), [])
    assert other.exists()
    assert [path.name for path in tmp_path.iterdir()] == [str(OTHER)]
    again = remove_study(tmp_path, STUDY)
    assert (again.files, again.left) == (0, [])


def test_what_is_not_ours_stays_and_is_named(tmp_path: Path) -> None:
    kept = [put(tmp_path, name) for name in STRANGERS]
    beside = tmp_path / str(STUDY) / "notes.txt"
    beside.write_text("mine")
    gone = put(tmp_path, FINAL)
    removed = remove_study(tmp_path, STUDY)
    assert not gone.exists()
    assert removed.files == 1
    assert all(path.exists() for path in (*kept, beside))
    told = "\n".join(removed.left)
    assert str(beside) in told
    for name in STRANGERS:
        assert str(tmp_path / str(STUDY) / "7" / name.partition("/")[0]) in told


def test_a_read_only_file_and_links_stay_and_nothing_behind_a_link_is_touched(tmp_path: Path) -> None:
    root, outside = tmp_path / "checkpoints", tmp_path / "outside"
    pinned = put(root, FINAL)
    pinned.chmod(0o444)
    target = put(outside, FINAL, trial=9)
    (root / str(STUDY) / "8").mkdir()
    (root / str(STUDY) / "8" / FINAL).symlink_to(target)
    (root / str(STUDY) / "9").symlink_to(target.parent)
    (root / str(OTHER)).symlink_to(outside / str(STUDY))
    assert [study.uuid for study in stored_studies(root)] == [STUDY]
    (study,) = stored_studies(root)
    assert [(trial.trial_id, len(trial.files)) for trial in study.trials] == [(7, 1), (8, 0)]
    removed = [remove_study(root, STUDY), remove_study(root, OTHER), remove_files(root, STUDY, 8, [FINAL])]
    removed.append(remove_files(root, STUDY, 9, [FINAL]))
    assert [one.files for one in removed] == [0, 0, 0, 0]
    assert target.exists()
    assert pinned.exists()
    assert any("read-only" in sentence for sentence in removed[0].left)
    assert all(one.left for one in removed), "each says why"


def test_a_root_that_is_a_link_is_what_its_owner_wants(tmp_path: Path) -> None:
    real = put(tmp_path / "disk", FINAL)
    (tmp_path / "checkpoints").symlink_to(tmp_path / "disk")
    assert remove_files(tmp_path / "checkpoints", STUDY, 7, [FINAL]).files == 1
    assert not real.exists()


@pytest.mark.parametrize("name", ["../x.pt", "../8/" + FINAL, "/etc/passwd", "..", "tensorboard/../" + FINAL, "x.pt"])
def test_a_name_that_we_do_not_give_is_refused(tmp_path: Path, name: str) -> None:
    put(tmp_path, FINAL, trial=8)
    put(tmp_path, FINAL)
    with pytest.raises(ValueError, match="not the name"):
        remove_files(tmp_path, STUDY, 7, [FINAL, name])
    assert (tmp_path / str(STUDY) / "7" / FINAL).exists(), "nothing is removed before all names are known to be ours"


def test_a_file_that_another_process_removes_first_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, FINAL)
    last = put(tmp_path, f"best-e0001-a0001-{DIGEST}.pt")
    unlink = os.unlink

    def twice(name: str, *, dir_fd: int) -> None:
        unlink(name, dir_fd=dir_fd)
        if name == FINAL:
            raise FileNotFoundError(name)

    monkeypatch.setattr(os, "unlink", twice)
    removed = remove_files(tmp_path, STUDY, 7, [FINAL, last.name])
    assert (removed.files, removed.left) == (1, [])


def test_what_the_system_refuses_is_said_and_the_rest_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, FINAL)
    last = put(tmp_path, f"best-e0001-a0001-{DIGEST}.pt")
    unlink = os.unlink

    def refusing(name: str, *, dir_fd: int) -> None:
        if name == FINAL:
            raise PermissionError(13, "Permission denied")
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refusing)
    removed = remove_files(tmp_path, STUDY, 7, [FINAL, last.name])
    assert removed.files == 1
    assert removed.left == [f"{tmp_path / str(STUDY) / '7' / FINAL} stays: Permission denied"]


@pytest.mark.parametrize("name", ["final-a0001-0123.pt", "best.pt", ".x.12.tmp", ""])
def test_other_names_say_nothing(name: str) -> None:
    assert parse_name(name) is None

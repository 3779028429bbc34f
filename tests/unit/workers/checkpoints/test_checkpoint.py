"""Checkpoints: atomic, checked, the newest whole one found, whatever happened to the others."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import torch

from workers.checkpoints.contents import Identity, load, newest_usable, writer
from workers.checkpoints.folder import ResumePoint, TrialFolder, run_of
from workers.errors import CheckpointError, CheckpointWriteError

from ..tiny import tiny_config

STUDY = UUID("5f0c7a3e-9d1b-4c55-8a52-0123456789ab")
IDENTITY = Identity(config=tiny_config(), epochs=9, dataset_version="v1", class_names=("a", "b"))


def _state(epoch: int, **more: Any) -> dict[str, Any]:
    return {**IDENTITY.to_state(), "epoch": epoch, "weights": torch.full((1000,), float(epoch)), **more}


def _save(folder: TrialFolder, epoch: int, batch: int = 0) -> Path:
    return folder.write_resume_point(writer(_state(epoch)), epoch=epoch, batch=batch)


def _resumed_epoch(folder: TrialFolder) -> int | None:
    found = newest_usable([point.path for point in folder.resume_points()], IDENTITY)
    return None if found is None else found[1]["epoch"]


@pytest.fixture
def folder(tmp_path: Path) -> TrialFolder:
    return TrialFolder.of(tmp_path, study=STUDY, trial_id=14, attempt=1, run=run_of(STUDY))


def test_the_folder_and_the_files_are_named_by_the_uuid_of_the_study(folder: TrialFolder, tmp_path: Path) -> None:
    assert folder.path == tmp_path / "5f0c7a3e-9d1b-4c55-8a52-0123456789ab" / "14"
    assert _save(folder, 2).name.startswith("a0001-e0002-b0000000-r5f0c7a3e9d1b-")
    assert folder.write_final(writer(_state(2))).name.startswith("final-a0001-r5f0c7a3e9d1b-")
    assert folder.write_best(writer(_state(2)), epoch=2).name.startswith("best-e0002-a0001-r5f0c7a3e9d1b-")


@pytest.mark.parametrize("run", ["", "0123456789ab"], ids=["an earlier release", "another run"])
def test_only_files_of_the_own_run_are_removed_or_resumed_from(folder: TrialFolder, run: str) -> None:
    other = TrialFolder(folder.path, attempt=1, run=run)
    kept = [_save(other, 7), _save(other, 8), other.write_final(writer(_state(8)))]
    kept.append(other.write_best(writer(_state(8)), epoch=8))
    for name in ("best.pt", "final.pt", ".notes.tmp", "a0001-e0003.pt"):
        kept.append(folder.path / name)
        kept[-1].write_bytes(b"a person's")
    for epoch in (1, 2, 3):
        _save(folder, epoch)
        folder.write_best(writer(_state(epoch)), epoch=epoch)
    assert [point.epoch for point in folder.resume_points()] == [3, 2]
    final = folder.write_final(writer(_state(3)))
    folder.remove_resume_points()
    best = next(path for path in folder.path.iterdir() if path.name.startswith("best-e0003-"))
    assert sorted(folder.path.iterdir()) == sorted([*kept, final, best])


def test_a_checkpoint_comes_back_as_it_was_and_carries_its_configuration(folder: TrialFolder) -> None:
    state = load(_save(folder, 2))
    assert state["config"] == IDENTITY.config.to_flat()
    assert state["epoch"] == 2
    assert torch.equal(state["weights"], torch.full((1000,), 2.0))


def test_the_newest_two_are_kept_and_the_last_whole_epoch(folder: TrialFolder) -> None:
    for epoch in (1, 2, 3):
        _save(folder, epoch)
    assert [(point.epoch, point.batch) for point in folder.resume_points()] == [(3, 0), (2, 0)]
    for batch in (1, 2, 3):
        _save(folder, 3, batch)
    assert [(point.epoch, point.batch) for point in folder.resume_points()] == [(3, 3), (3, 2), (3, 0)]


def test_points_of_a_later_attempt_are_newer_than_what_an_earlier_attempt_still_writes(
    folder: TrialFolder, tmp_path: Path
) -> None:
    _save(folder, 7)
    second = TrialFolder.of(tmp_path, study=STUDY, trial_id=14, attempt=2, run=run_of(STUDY))
    mine = [_save(second, 3), _save(second, 4)]
    _save(folder, 8)
    assert [point.path for point in second.resume_points()] == mine[::-1]


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _flip_a_bit_of_a_weight(path: Path) -> None:
    content = bytearray(path.read_bytes())
    place = content.index(torch.full((4,), 2.0).numpy().tobytes())
    content[place + 2] ^= 1
    path.write_bytes(content)
    # PyTorch itself reads such a file without complaint, which is why the name holds a digest.
    assert not torch.equal(torch.load(path, weights_only=True)["weights"], torch.full((1000,), 2.0))


@pytest.mark.parametrize("damage", [_truncate, _empty, _flip_a_bit_of_a_weight, Path.unlink])
def test_a_damaged_newest_file_falls_back_to_the_one_before(folder: TrialFolder, damage: Any) -> None:
    _save(folder, 1)
    newest = _save(folder, 2)
    damage(newest)
    assert _resumed_epoch(folder) == 1


def test_no_whole_file_means_a_fresh_start(folder: TrialFolder) -> None:
    assert _resumed_epoch(folder) is None
    _truncate(_save(folder, 1))
    assert _resumed_epoch(folder) is None


@pytest.mark.parametrize(
    "other",
    [
        {"config": tiny_config(seed=5).to_flat()},
        {"epochs": 10},
        {"dataset_version": "v2"},
        {"class_names": ["b", "a"]},
    ],
)
def test_a_checkpoint_of_another_run_is_passed_over(folder: TrialFolder, other: dict[str, Any]) -> None:
    folder.write_resume_point(writer({**_state(5), **other}), epoch=5, batch=0)
    assert _resumed_epoch(folder) is None


def test_files_that_are_not_ours_are_left_alone(folder: TrialFolder) -> None:
    folder.path.mkdir(parents=True)
    stranger = folder.path / "notes.txt"
    stranger.write_text("mine")
    assert ResumePoint.parse(stranger) is None
    _save(folder, 1)
    final = folder.write_final(writer(_state(1)))
    folder.remove_resume_points()
    assert sorted(folder.path.iterdir()) == sorted([final, stranger])


def test_a_file_that_runs_code_when_loaded_is_refused(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"format": 1, "trap": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(CheckpointError, match=r"trap\.pt cannot be read"):
        load(tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()


def test_a_small_file_cannot_fill_the_memory(tmp_path: Path) -> None:
    torch.save({"format": 1, "model": torch.zeros(100_000)}, tmp_path / "whole.pt")
    with zipfile.ZipFile(tmp_path / "whole.pt") as whole, zipfile.ZipFile(tmp_path / "small.pt", "w") as small:
        for member in whole.infolist():
            small.writestr(member.filename, whole.read(member), zipfile.ZIP_DEFLATED)
    assert load(tmp_path / "whole.pt")["format"] == 1
    with pytest.raises(CheckpointError, match=r"small\.pt holds more than its size"):
        load(tmp_path / "small.pt")


def test_a_file_that_is_not_a_checkpoint_is_named(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match=r"list\.pt is not a checkpoint"):
        load(tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="No such file"):
        load(tmp_path / "absent.pt")


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "3").write_text("a file in the way")
    folder = TrialFolder.of(tmp_path, study=3, trial_id=1, attempt=1, run="")
    with pytest.raises(CheckpointWriteError, match=r"cannot be written \(Not a directory\); check the folder"):
        _save(folder, 1)


_FULL_DISK = """
import errno, resource, signal, sys
from pathlib import Path
import torch
from workers.checkpoints.contents import writer
from workers.errors import CheckpointWriteError
from workers.checkpoints.folder import TrialFolder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = TrialFolder(Path(sys.argv[1]), attempt=1)
folder.write_resume_point(writer({"weights": torch.zeros(10)}), epoch=1, batch=0)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    folder.write_resume_point(writer({"weights": torch.zeros(1_000_000)}), epoch=2, batch=0)
except CheckpointWriteError as error:
    assert error.__cause__.errno == errno.EFBIG, error.__cause__
    print(error)
print([path.suffix for path in Path(sys.argv[1]).iterdir()])
"""


def test_a_write_that_the_system_refuses_keeps_its_reason_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    sentence, left = done.stdout.splitlines()
    assert "a0001-e0002-b0000000 cannot be written (File too large)" in sentence
    assert left == "['.pt']"


_KILLED_WHILE_SAVING = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from workers.checkpoints.contents import Identity, load, newest_usable, writer
from workers.checkpoints.folder import TrialFolder
from tests.unit.workers.checkpoints.test_checkpoint import IDENTITY, _state

def save_for_ever(folder, pipe):
    epoch = 0
    while True:
        epoch += 1
        state = _state(epoch, more=torch.full((200_000,), float(epoch)))
        folder.write_resume_point(writer(state), epoch=epoch, batch=0)
        os.write(pipe, b"x")

torch.set_num_threads(1)
random.seed(0)
for number in range(20):
    folder = TrialFolder(Path(sys.argv[1]) / str(number), attempt=1)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        save_for_ever(folder, write)
    os.close(write)
    announced = len(os.read(read, 1))
    time.sleep(random.uniform(0, 0.02))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while found := os.read(read, 4096):
        announced += len(found)
    os.close(read)
    paths = [point.path for point in folder.resume_points()]
    _, state = newest_usable(paths, IDENTITY)
    assert state["epoch"] in (announced, announced + 1), (state["epoch"], announced)
    assert torch.equal(state["more"], torch.full((200_000,), float(state["epoch"])))
    assert len(paths) <= 3
    # The next save goes through and clears what the killed one left.
    folder.write_resume_point(writer(_state(announced + 2)), epoch=announced + 2, batch=0)
print("whole")
"""


def test_sigkill_while_saving_never_costs_more_than_the_running_save(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _KILLED_WHILE_SAVING, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).resolve().parents[4],
    )
    assert done.stdout.strip() == "whole", done.stderr


def test_a_refit_and_a_training_do_not_continue_each_other() -> None:
    refit = replace(IDENTITY, refit=True)
    assert "refit" not in IDENTITY.to_state(), "a checkpoint of an earlier release is written the same again"
    assert IDENTITY.problem_with(IDENTITY.to_state()) is refit.problem_with(refit.to_state()) is None
    assert refit.problem_with(IDENTITY.to_state()) == "it is not of a refit"
    assert "it is of a refit" in (IDENTITY.problem_with(refit.to_state()) or "")

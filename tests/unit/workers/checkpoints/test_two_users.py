"""Workers of two users of one machine go on with each other's trials, and a folder that they may not use costs none."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from workers.checkpoints.folder import TrialFolder, Writable, verify
from workers.training.curve_files import METRICS_NAME, CurveFiles
from workers.training.epoch import EpochResult
from workers.training.failure import classify

FIRST, SECOND, GROUP = 12001, 12002, 12000
RUN = "0123456789ab"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user can reach; nobody but root may write it."""
    made = Path(tempfile.mkdtemp(prefix="hpo-users-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def run(shared: Path, user: int, attempt: int, *steps: Callable[[TrialFolder], object], umask: int = 0o022) -> str:
    """Return what came of what a user does in an attempt of the trial, in a process of its own."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([GROUP])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        os.umask(umask)
        said = "done"
        try:
            for step in steps:
                step(TrialFolder(shared / "study" / "7", attempt=attempt, run=RUN))
        except BaseException as error:
            said = f"{type(error).__name__} {classify(error).kind}" if isinstance(error, Exception) else repr(error)
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as pipe:
        return pipe.read()


def sign(file: Writable) -> None:
    """Write whose file it is."""
    file.write(b"%d" % os.getuid())


def save(folder: TrialFolder) -> None:
    """Write a checkpoint."""
    folder.write_resume_point(sign, epoch=folder.attempt, batch=0)


def draw(folder: TrialFolder) -> None:
    """Write the curve."""
    curve = CurveFiles(folder.path)
    curve.restart([])
    curve.add(EpochResult(epoch=folder.attempt, metrics={"val_top1": 0.5}, seconds=1.0))


def resume(folder: TrialFolder) -> None:
    """Read the newest checkpoint, which another attempt wrote."""
    newest = folder.resume_points()[0]
    assert newest.attempt == folder.attempt - 1
    verify(newest.path)


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_in_a_folder_of_their_group_one_goes_on_where_the_other_was(shared: Path, umask: int) -> None:
    os.chown(shared, 0, GROUP)
    shared.chmod(0o2775)
    assert run(shared, FIRST, 1, save, draw, umask=umask) == "done"
    assert run(shared, SECOND, 2, resume, save, draw, umask=umask) == "done"
    assert run(shared, FIRST, 3, resume, save, draw, umask=umask) == "done"
    end = run(shared, SECOND, 4, resume, lambda folder: folder.write_final(sign))
    assert end == "done"
    assert run(shared, SECOND, 4, TrialFolder.remove_resume_points) == "done"
    trial = shared / "study" / "7"
    assert sorted(path.name.split("-")[0] for path in trial.iterdir()) == ["final", METRICS_NAME]
    assert '"epoch": 3' in (trial / METRICS_NAME).read_text()


def test_files_of_another_user_that_cannot_be_removed_stay(shared: Path) -> None:
    trial = shared / "study" / "7"
    trial.mkdir(parents=True)
    trial.chmod(0o1777)
    for attempt, user in enumerate((FIRST, SECOND, SECOND, SECOND), start=1):
        assert run(shared, user, attempt, save) == "done"
    assert run(shared, SECOND, 5, TrialFolder.remove_resume_points) == "done"
    (left,) = trial.iterdir()
    assert left.read_bytes() == b"%d" % FIRST


@pytest.mark.parametrize("obstacle", ["a folder of another user", "a folder that nobody else may see", "a file"])
def test_a_folder_that_cannot_be_used_is_a_fault_of_the_machine(shared: Path, obstacle: str) -> None:
    study = shared / "study"
    if obstacle == "a file":
        study.touch()
    else:
        study.mkdir()
        os.chown(study, FIRST, FIRST)
        study.chmod(0o755 if obstacle == "a folder of another user" else 0o700)
        assert run(shared, FIRST, 1, save) == "done"
    assert run(shared, SECOND, 2, save) == "CheckpointWriteError storage"
    assert run(shared, SECOND, 2, draw).endswith(" storage")
    seen = run(shared, SECOND, 2, TrialFolder.resume_points)
    assert seen == ("done" if obstacle == "a folder of another user" else seen)
    assert seen == "done" or seen.endswith(" storage")

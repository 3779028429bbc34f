"""Logs of processes that wait for a trial: removed once nobody prints to them, by real processes and real locks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workers.checkpoints.standby_logs import abandoned_logs, open_standby_log, remove_abandoned_logs

HOUR = 3600.0
DAY = 24 * HOUR


def age(path: Path, seconds: float) -> Path:
    """Make a file older, and return it."""
    moment = time.time() - seconds
    os.utime(path, (moment, moment))
    return path


def test_a_log_stays_while_a_process_prints_to_it_although_the_worker_is_gone(tmp_path: Path) -> None:
    path, file = open_standby_log(tmp_path)
    with file:
        waiting = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, stdout=file)
    age(path, 3 * DAY)
    assert remove_abandoned_logs(tmp_path) == 0
    waiting.kill()
    waiting.communicate()
    assert abandoned_logs(tmp_path) == [path]
    assert remove_abandoned_logs(tmp_path) == 1
    assert list(tmp_path.iterdir()) == []


def test_two_logs_of_one_worker_have_two_names(tmp_path: Path) -> None:
    names = []
    for _ in range(2):
        path, file = open_standby_log(tmp_path)
        file.close()
        names.append(path.name)
    assert len(set(names)) == 2


@pytest.mark.parametrize(
    ("name", "seconds", "goes"),
    [
        (".standby-4711-1-locked.log", HOUR, True),
        (".standby-4711-1-locked.log", 60.0, False),
        (".standby-4711-1.log", 29 * DAY, False),
        (".standby-4711-1.log", 31 * DAY, True),
        (".standby-4711-locked.log", 90 * DAY, False),
        ("standby-4711-1-locked.log", 90 * DAY, False),
        (".standby-4711-1-locked.log.bak", 90 * DAY, False),
    ],
)
def test_only_what_is_ours_and_old_enough_goes(tmp_path: Path, name: str, seconds: float, goes: bool) -> None:
    path = tmp_path / name
    path.touch()
    age(path, seconds)
    assert remove_abandoned_logs(tmp_path) == goes
    assert path.exists() is not goes


def test_links_and_folders_stay_and_a_folder_that_is_not_there_has_none(tmp_path: Path) -> None:
    target = tmp_path / "model.pt"
    target.touch()
    (tmp_path / ".standby-1-1-locked.log").symlink_to(age(target, DAY))
    (tmp_path / ".standby-1-2-locked.log").mkdir()
    assert remove_abandoned_logs(tmp_path) == 0
    assert target.exists()
    assert remove_abandoned_logs(tmp_path / "nowhere") == 0

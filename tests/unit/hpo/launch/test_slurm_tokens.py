"""Copies of tokens go once Slurm has no job left that reads them, and not before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpo.launch.slurm_tokens import outlived_tokens, remove_outlived_tokens, write_token


def _squeue(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "bin" / "squeue"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def _array(home: Path, name: str, number: int | None) -> Path:
    token = write_token(home / "launch" / f"slurm-{name}", "secret")
    if number is not None:
        (token.parent / f"{number}_submission.sh").touch()
    return token


def test_the_token_of_an_array_that_has_ended_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _squeue(tmp_path, monkeypatch, 'case "$*" in *--user=*) echo 12; echo 12;; esac')
    running, ended = _array(tmp_path, "a", 12), _array(tmp_path, "b", 1)
    submitting, failed = _array(tmp_path, "c", None), _array(tmp_path, "d", None)
    os.utime(failed.parent, (0, 0))
    assert outlived_tokens(tmp_path) == [ended, failed]
    assert remove_outlived_tokens(tmp_path) == 2
    assert [path.exists() for path in (running, ended, submitting, failed)] == [True, False, True, False]
    assert (ended.parent / "1_submission.sh").exists(), "what the jobs printed stays"


@pytest.mark.parametrize("script", ["exit 1", None])
def test_nothing_goes_where_slurm_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None
) -> None:
    if script is None:
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        _squeue(tmp_path, monkeypatch, script)
    token = _array(tmp_path, "a", 1)
    assert remove_outlived_tokens(tmp_path) == 0
    assert token.read_text() == "secret"
    assert token.stat().st_mode & 0o777 == 0o600

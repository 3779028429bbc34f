"""A checkpoint gives back what a function handed over, in the same form."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from hpo.functions.trial import FunctionError
from hpo.protocol import Measurement
from workers.checkpoints.folder import TrialFolder
from workers.errors import CheckpointError
from workers.functions import checkpoints

CURVE = [Measurement(step=1, metrics={"accuracy": 0.5}, wall_seconds=1, gpu_seconds=1)]
PARAMS = {"width": 2, "seed": 7}


def _kept(value: object, folder: Path) -> checkpoints.Kept:
    written = checkpoints.writer(value, epoch=1, curve=CURVE, params=PARAMS)
    path = TrialFolder(folder / "trial", attempt=1, run="0" * 12).write_resume_point(written, epoch=1, batch=0)
    return checkpoints.read(path)


@pytest.mark.parametrize("value", [b"\x00bytes", {"w": [1, 2.5, "x"], "n": None}, {"shape": (1, 2)}, {1: "one"}, 3.5])
def test_values_come_back_as_they_were(value: Any, tmp_path: Path) -> None:
    kept = _kept(value, tmp_path)
    found = kept.content(tmp_path / "scratch")
    assert found == value
    assert type(found) is type(value)
    assert (kept.epoch, kept.curve, kept.params) == (1, tuple(CURVE), PARAMS)


def test_a_state_dict_comes_back_without_running_code(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    kept = _kept({"model": model.state_dict(), "epoch": 4}, tmp_path)
    found = kept.content(tmp_path)
    assert isinstance(found, dict)
    assert kept.form == "torch"
    assert all(torch.equal(found["model"][name], value) for name, value in model.state_dict().items())


def test_a_file_and_a_folder_come_back_as_paths_of_copies(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "layers" / "empty").mkdir(parents=True)
    (folder / "layers" / "one.bin").write_bytes(b"1")
    file = _kept(folder / "layers" / "one.bin", tmp_path).content(tmp_path / "scratch")
    again = _kept(str(folder), tmp_path).content(tmp_path / "scratch")
    assert isinstance(file, Path)
    assert isinstance(again, Path)
    assert (file.name, file.read_bytes()) == ("one.bin", b"1")
    assert again.name == "model"
    assert sorted(path.relative_to(again).as_posix() for path in again.rglob("*")) == [
        "layers",
        "layers/empty",
        "layers/one.bin",
    ]


def test_a_folder_is_kept_with_what_its_links_lead_to_and_with_old_times(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "model", tmp_path / "checkpoint-200"
    for made in (folder, elsewhere):
        made.mkdir()
    (elsewhere / "weights").write_bytes(b"w")
    os.utime(elsewhere / "weights", (0, 0))
    (folder / "best").symlink_to(elsewhere)
    again = _kept(folder, tmp_path).content(tmp_path / "scratch")
    assert isinstance(again, Path)
    assert (again / "best" / "weights").read_bytes() == b"w"
    (elsewhere / "back").symlink_to(folder)
    with pytest.raises(FunctionError, match="leads to a folder that it is in"):
        _kept(folder, tmp_path)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("no/such/file", "there is no such file"),
        ({"f": io.StringIO()}, "hand over bytes, a path, or a dict of tensors"),
    ],
)
def test_what_cannot_be_kept_is_said(value: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(FunctionError, match=words):
        _kept(value, tmp_path)


def test_a_damaged_checkpoint_is_none(tmp_path: Path) -> None:
    path = _kept(b"content", tmp_path).path
    path.write_bytes(path.read_bytes().replace(b"content", b"contend"))
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoints.read(path)

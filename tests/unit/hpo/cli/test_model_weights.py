"""`hpo models weights`: what a file is, which models it fits, and what one of them would take from it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from hpo.cli.app import app
from models import create_model


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file in the folder of weights, of a small network with 7 classes."""
    path = tmp_path / "home" / "weights" / "small.safetensors"
    path.parent.mkdir(parents=True)
    save_file(create_model("slowfast_r18", num_classes=7, width=8).state_dict(), path)
    return path


def run(tmp_path: Path, *arguments: str | Path) -> Result:
    home = ["--home", str(tmp_path / "home")]
    return CliRunner().invoke(app, [*home, "models", "weights", *map(str, arguments)])


def test_a_file_is_named_with_the_models_that_it_fits(tmp_path: Path, file: Path) -> None:
    said = run(tmp_path, file.name)  # the other tests give its whole path
    assert said.exit_code == 0, said.output
    assert "7 classes" in said.output
    assert f"SHA-256 {hashlib.sha256(file.read_bytes()).hexdigest()}" in said.output
    rows = [line for line in said.output.splitlines() if "slowfast_r18" in line]
    assert rows
    assert "width=8" in rows[0]
    assert "head.bias" in rows[0]


def test_with_a_model_it_says_what_is_loaded_and_what_is_reset(tmp_path: Path, file: Path) -> None:
    tensors = len(create_model("slowfast_r18", num_classes=7, width=8).state_dict())
    asked = ["--model", "slowfast_r18", "-o", "width=8", "--json"]
    same = json.loads(run(tmp_path, file, *asked).output)["loading"]
    assert (len(same["loaded"]), same["reset"]) == (tensors, [])
    other = json.loads(run(tmp_path, file, *asked, "--classes", "3").output)["loading"]
    assert (len(other["loaded"]), other["reset"]) == (tensors - 2, ["head.bias", "head.weight"])
    assert "drawn anew, of the head" in run(tmp_path, file, *asked[:-1], "--classes", "3").output


def test_what_does_not_fit_or_is_no_weights_file_is_one_sentence(tmp_path: Path, file: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    for arguments, words in (
        ([file, "--model", "slowfast_r18"], "does not fit slowfast_r18"),
        ([file, "--model", "slowfast_r18", "-o", "alpha=4"], "it fits with -o width=8"),
        ([file, "--model", "slowfast_r18", "-o", "width=8", "--stream", "rgb"], "has one stream: leave out --stream"),
        ([tmp_path / "list.pth"], "does not contain a state dict"),
        ([tmp_path / "absent.pth"], "absent.pth does not exist"),
        (["absent.pth"], "has no weights file 'absent.pth'"),
    ):
        said = run(tmp_path, *arguments)
        assert said.exit_code == 1
        assert words in str(said.exception)


def test_the_streams_of_a_model_are_named_as_in_a_study(tmp_path: Path) -> None:
    options: dict[str, Any] = {"width": 8, "flow_channels": 4}
    state = create_model("stmulnet_r18", num_classes=3, **options).state_dict()
    flow = {name.removeprefix("temporal."): tensor for name, tensor in state.items() if name.startswith("temporal.")}
    torch.save(flow, tmp_path / "flow.pth")
    into = [
        "--model",
        "stmulnet_r18",
        *(f"-o{name}={value}" for name, value in options.items()),
        "--classes",
        "3",
        "--json",
    ]
    loading = json.loads(run(tmp_path, tmp_path / "flow.pth", *into, "--stream", "flow").output)["loading"]
    assert set(loading["loaded"]) == {f"temporal.{name}" for name in flow}
    said = run(tmp_path, tmp_path / "flow.pth", *into, "--stream", "sound")
    assert "has no part 'sound'" in str(said.exception)

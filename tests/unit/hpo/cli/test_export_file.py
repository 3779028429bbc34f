"""`hpo export` writes a folder that can be moved to another machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpo.cli.results import write_export
from hpo.errors import SetupError
from hpo.results.export import build_export, load_export
from hpo.spec import parse_spec
from hpo.trial import Params, TrialRecord, TrialState

from ..spec.specs import VALID

PARAMS: Params = {"lr": 0.01, "weight_decay": 1e-05, "model": "slowfast_r50_4x16", "model.alpha": 8}


def _document(checkpoint: str | None) -> dict[str, Any]:
    trial = TrialRecord(
        id=11, number=7, state=TrialState.COMPLETED, params=PARAMS, metrics={"val_top1": 0.5}, epochs_done=40
    )
    export = build_export(
        study="slowfast-ucf101",
        spec=parse_spec(VALID),
        trial=trial,
        dataset_version=None,
        environment={},
        checkpoint=checkpoint,
    )
    return export.model_dump(mode="json")


@pytest.mark.parametrize("name", ["best.yaml", "best.json"])
def test_the_checkpoint_is_beside_the_file_and_named_without_a_folder(tmp_path: Path, name: str) -> None:
    trained = tmp_path / "worker" / "last.pt"
    trained.parent.mkdir()
    trained.write_bytes(b"weights")
    output = tmp_path / "out" / "deep" / name
    assert write_export(_document(str(trained)), output) == output.with_name("best.pt")
    assert output.with_name("best.pt").read_bytes() == b"weights"
    assert load_export(output).checkpoint == "best.pt"
    assert str(tmp_path) not in output.read_text()


def test_paths_on_another_machine_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "best.json"
    assert write_export(_document("/worker/7/last.pt"), output) is None
    assert json.loads(output.read_text())["checkpoint"] == "/worker/7/last.pt"
    assert not output.with_suffix(".pt").exists()
    assert "not on this machine (/worker/7/last.pt)" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match=r"best\.yaml cannot be written"):
        write_export(_document(None), tmp_path / "file" / "best.yaml")

"""`hpo study`: what a person sees of it, what a script reads, and the exit code of each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ..api.service import Service, spec
from .conftest import Command


def _write(folder: Path, **changes: Any) -> Path:
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(spec(**changes)))
    return file


def test_a_study_is_created_once(service: Service, tmp_path: Path, hpo: Command) -> None:
    file = _write(tmp_path)
    made = hpo(service, "study", "create", file)
    assert (made.code, made.out) == (
        0,
        "study demo is active; start a worker with `hpo-worker --gpu 0` (or --cpu)\n",
    )
    again = hpo(service, "study", "create", file)
    assert again.code == 4
    assert again.err.startswith("error: ")
    assert "demo" in again.err


def test_json_of_a_new_study_is_what_the_api_says(service: Service, tmp_path: Path, hpo: Command) -> None:
    made = hpo(service, "study", "create", _write(tmp_path), "--json").json
    assert made == hpo(service, "study", "show", "demo", "--json").json
    assert (made["name"], made["state"], made["trial_counts"]) == ("demo", "active", {})


def test_each_wrong_field_is_a_line_and_nothing_is_created(service: Service, tmp_path: Path, hpo: Command) -> None:
    space = {"lr": {"type": "float", "low": 0.0, "high": 0.3, "log": True}, "model": {"type": "categorical"}}
    wrong = hpo(service, "study", "create", _write(tmp_path, space=space))
    assert wrong.code == 2
    lines = wrong.err.splitlines()
    assert all(line.startswith("error: space.") for line in lines)
    assert {line.split(":")[1].split(".")[1] for line in lines} == {"lr", "model"}
    unknown = _write(tmp_path, task={**spec()["task"], "base": {"model": "resnet_of_mine"}})
    assert hpo(service, "study", "create", unknown).code == 2, "models are checked before anything is sent"
    assert hpo(service, "study", "list", "--json").json == []


def test_the_list_has_a_row_for_each_study(past_service: Service, hpo: Command) -> None:
    listed = hpo(past_service, "study", "list")
    (row,) = [line for line in listed.out.splitlines() if "demo" in line]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[:2] == ["demo", "active"]
    expected = {"5 completed", "2 stopped", "1 failed", "1 running", "1 suggested"}
    assert set(cells[2].split(", ")) == expected
    # 4 or 10 epochs of a second of GPU time each.
    assert float(cells[3]) == pytest.approx(62 / 3600, rel=0.05)


def test_one_study_is_shown_in_sentences(past_service: Service, hpo: Command) -> None:
    shown = hpo(past_service, "study", "show", "demo", scope="read")
    first, second = shown.out.splitlines()
    assert first == "demo: active"
    # Two trials were stopped after 4 of 10 epochs: 12 epochs of a second.
    assert second.endswith("GPU hours: 0.017 (0.0033 more saved by early stopping)")


def test_a_study_is_paused_resumed_stopped_and_deleted(service: Service, hpo: Command) -> None:
    service.create()
    for verb, state in (("pause", "paused"), ("resume", "active"), ("stop", "stopped")):
        said = hpo(service, "study", verb, "demo")
        assert (said.code, said.out.splitlines()[0].split(" (")[0]) == (0, f"study demo is {state}")
    assert hpo(service, "study", "resume", "demo").code == 4, "a stopped study has ended"
    deleted = hpo(service, "study", "delete", "demo", "--yes")
    assert (deleted.code, deleted.out) == (0, "study demo is deleted\n")
    assert hpo(service, "study", "list", "--json").json == []


def test_deleting_asks_first(service: Service, hpo: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    service.create()
    asked = []

    def confirm(question: str, *, abort: bool) -> None:
        asked.append((question, abort))
        raise KeyboardInterrupt

    monkeypatch.setattr("typer.confirm", confirm)
    assert hpo(service, "study", "delete", "demo").code == 130
    assert asked == [("Delete study demo with all its trials?", True)]
    assert len(hpo(service, "study", "list", "--json").json) == 1


@pytest.mark.parametrize(
    "command",
    [
        ("study", "show", "deom"),
        ("study", "pause", "deom"),
        ("study", "resume", "deom"),
        ("study", "stop", "deom"),
        ("study", "delete", "deom", "--yes"),
        ("study", "enqueue", "deom", "lr=0.1"),
        ("trials", "deom"),
        ("best", "deom"),
        ("export", "deom"),
        ("logs", "deom"),
    ],
    ids=" ".join,
)
def test_an_unknown_study_is_exit_code_3(past_service: Service, hpo: Command, command: tuple[str, ...]) -> None:
    said = hpo(past_service, *command)
    assert (said.code, said.out) == (3, "")
    assert said.err.startswith("error: ")
    assert "deom" in said.err


@pytest.mark.parametrize("verb", ["pause", "resume", "stop", "delete"])
def test_steering_needs_more_than_a_token_to_read(past_service: Service, hpo: Command, verb: str) -> None:
    said = hpo(past_service, "study", verb, "demo", *(["--yes"] if verb == "delete" else []), scope="read")
    assert said.code == 5
    assert said.err.startswith("error: ")
    assert hpo(past_service, "study", "show", "demo", "--json").json["state"] == "active"

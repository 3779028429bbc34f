"""`hpo study enqueue` and what `hpo study` tells of guesses and earlier studies, against a real server."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hpo.cli import main

from .service import Service, spec


def _hpo(service: Service, folder: Path, *arguments: str, group: tuple[str, ...] = ("study",)) -> int:
    token = folder / "token"
    token.write_text(service.tokens["admin"])
    with pytest.raises(SystemExit) as ended:
        main(["--home", str(folder), "--url", service.url, "--token-file", str(token), *group, *arguments])
    return int(ended.value.code or 0)


def test_guesses_from_the_command_line_and_files(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.create()
    (tmp_path / "guesses.yaml").write_text("- {lr: 0.01}\n- {lr: 0.02, dropout: 0.5}\n")
    assert _hpo(service, tmp_path, "enqueue", "demo", "lr=1e-2", str(tmp_path / "guesses.yaml")) == 0
    assert capsys.readouterr().out == "2 added, 1 already enqueued before; 2 to be tried next\n"
    assert _hpo(service, tmp_path, "show", "demo") == 0
    assert "to be tried next: 2 enqueued configurations" in capsys.readouterr().out


def test_a_trial_is_trained_again(service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    service.complete(service.create(), 1)
    assert _hpo(service, tmp_path, "enqueue", "demo", "--again", "0") == 0
    assert capsys.readouterr().out == "trial 1 trains the configuration of trial 0 again\n"
    with service.http() as http:
        (_, added) = http.get("/v1/studies/demo/trials").json()["trials"]
    assert (added["replicate_of"], added["state"], added["generator"]) == (0, "suggested", "replicate")
    assert _hpo(service, tmp_path, "enqueue", "demo", "--again", "7") == 3
    assert _hpo(service, tmp_path, "enqueue", "demo", "lr=0.1", "--again", "0") == 2
    assert _hpo(service, tmp_path, "enqueue", "demo") == 2


def test_finalists_of_a_running_study_and_of_one_whose_search_ends_now(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.complete(service.create(budget={"trials": 20}), 1)
    assert _hpo(service, tmp_path, "finalists", "demo", "--seeds", "2", group=()) == 0
    wanted = "after the search the best 3 are trained again, up to 2 times each"
    assert capsys.readouterr().out == f"study demo is active\n{wanted}\n"
    assert _hpo(service, tmp_path, "finalists", "demo", "--now", group=()) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first == "study demo is active (finalists were asked for; the best configurations are trained again)"
    assert last == "finalists: 1 further training of the best 3 configurations"
    assert _hpo(service, tmp_path, "finalists", "demo", "--share", "0.01", group=()) == 4
    assert "less than one training" in capsys.readouterr().err
    assert _hpo(service, tmp_path, "show", "demo") == 0
    assert last in capsys.readouterr().out


def test_a_wrong_guess_is_a_sentence_and_exit_code_2(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.create()
    assert _hpo(service, tmp_path, "enqueue", "demo", "lr=fast") == 2
    expected = "error: guesses[0].lr: 'fast' is not in the space; give a number from 0.0001 to 0.3\n"
    assert capsys.readouterr().err == expected
    assert _hpo(service, tmp_path, "enqueue", "demo", "nowhere.yaml") == 2
    assert "nowhere.yaml: cannot be read" in capsys.readouterr().err


def test_a_new_study_names_the_studies_that_it_learns_from(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.complete(service.create(), 2)
    raw = spec(name="next", optimizer={"warm_start": ["demo"]})
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(raw))
    assert _hpo(service, tmp_path, "create", str(tmp_path / "study.yaml")) == 0
    assert capsys.readouterr().out.startswith("learns from 2 trials of demo\n")
    assert _hpo(service, tmp_path, "show", "next") == 0
    assert "learns from 2 trials of demo\n" in capsys.readouterr().out

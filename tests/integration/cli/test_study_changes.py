"""`hpo study edit`, `reopen`, `clone`, `hpo trial cancel`, `retry` and `hpo login`, as a person runs them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ..api.service import Service, claim_body, spec
from .conftest import Command


def test_limits_are_changed_and_taken_away(service: Service, hpo: Command) -> None:
    service.create(budget={"trials": 20, "gpu_hours": 4.0})
    said = hpo(service, "study", "edit", "demo", "--trials", "30", "--gpu-hours", "none", "--target", "val_top1=0.9")
    assert (said.code, said.out) == (0, "study demo is active; its budget: 30 trials, val_top1 0.9\n")
    said = hpo(service, "study", "edit", "demo", "--target", "none", "--wall-hours", "1.5", "--max-failed", "7")
    assert said.out == "study demo is active; its budget: 30 trials, 1.5 hours, 7 failed trials\n"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "say what changes, such as --trials 80"),
        (["--trials", "many"], "'many' is not a whole number"),
        (["--gpu-hours", "1h"], "'1h' is not a number"),
        (["--gpu-hours", "nan"], "'nan' is not a number"),
        (["--target", "0.9"], "write METRIC=VALUE"),
        (["--trials", "0"], "trials"),
        (["--trials", "none"], "would never end"),
    ],
)
def test_a_wrong_limit_is_a_sentence(service: Service, hpo: Command, options: list[str], complaint: str) -> None:
    service.create()
    said = hpo(service, "study", "edit", "demo", *options)
    assert said.code == 2
    assert complaint in " ".join(said.err.replace("│", " ").split())
    assert "Traceback" not in said.err
    assert hpo(service, "study", "show", "demo", "--json").json["spec"]["budget"]["trials"] == 20


def test_an_ended_study_goes_on(service: Service, hpo: Command) -> None:
    service.complete(service.create(budget={"trials": 2}), 2)
    refused = hpo(service, "study", "reopen", "demo")
    assert (refused.code, "would end again at once" in refused.err) == (4, True)
    said = hpo(service, "study", "reopen", "demo", "--trials", "5")
    assert (said.code, said.out) == (0, "study demo is active again; its budget: 5 trials\n")


def test_a_clone_has_the_same_spec(service: Service, hpo: Command) -> None:
    with service.http() as http:
        http.post("/v1/studies", json=spec()).raise_for_status()
    assert hpo(service, "study", "clone", "demo", "demo-2").out == "study demo-2 is active\n"
    first, second = (hpo(service, "study", "show", name, "--json").json for name in ("demo", "demo-2"))
    assert {**second["spec"], "name": "demo"} == first["spec"]
    assert hpo(service, "study", "clone", "demo", "demo-2").code == 4, "the name is taken"


def test_a_clone_of_an_earlier_release_says_which_settings_it_has_more(service: Service, hpo: Command) -> None:
    service.create()  # as a release stored it that did not set them
    _, added = hpo(service, "study", "clone", "demo", "demo-2").out.splitlines()
    assert added == "set as in every new study, and not in the old one: precise_bn: True, decay_tables: False"


def test_a_spec_is_written_to_be_changed(service: Service, hpo: Command, tmp_path: Path) -> None:
    service.create()
    file = tmp_path / "next.yaml"
    said = hpo(service, "study", "clone", "demo", "next", "--output", file)
    assert (said.code, str(file) in said.out) == (0, True)
    changed = yaml.safe_load(file.read_text())
    changed["budget"]["trials"] = 7
    file.write_text(yaml.safe_dump(changed))
    assert hpo(service, "study", "create", file).code == 0
    assert hpo(service, "study", "show", "next", "--json").json["spec"]["budget"]["trials"] == 7
    nowhere = hpo(service, "study", "clone", "demo", "next", "-o", tmp_path / "none" / "next.yaml")
    assert (nowhere.code, "cannot be written" in nowhere.err) == (1, True)


def test_trials_are_cancelled_and_trained_again(service: Service, hpo: Command) -> None:
    service.suggest(service.create(), 2)
    with service.http() as http:
        http.post("/v1/leases", json=claim_body()).raise_for_status()
    assert hpo(service, "trial", "retry", "demo", "1").code == 4, "it has not begun"
    assert hpo(service, "trial", "retry", "demo", "0").out == "trial 2 trains the configuration of trial 0 again\n"
    assert hpo(service, "trial", "cancel", "demo", "0").out == "trial 0 is running; it ends at its next heartbeat\n"
    assert hpo(service, "trial", "cancel", "demo", "1").out == "trial 1 is withdrawn\n"
    params = [trial["params"] for trial in hpo(service, "trials", "demo", "--json").json]
    assert params[2] == params[0] != params[1]


def test_a_new_link_logs_a_browser_in(service: Service, hpo: Command) -> None:
    link = hpo(service, "login").out.strip()
    with service.http(None) as browser:
        assert browser.get(link).headers["location"] == "/"
        again = browser.get(link)
    assert (again.status_code, "hpo login" in again.text) == (401, True)


def test_options_of_the_root_are_read_behind_a_command_too(past_service: Service, hpo: Command) -> None:
    # The last one wins: nothing answers at port 1.
    said = hpo(past_service, "study", "list", "--url=http://127.0.0.1:1")
    assert (said.code, "http://127.0.0.1:1" in said.err) == (6, True)


def test_a_note_is_kept_changed_and_removed(service: Service, hpo: Command) -> None:
    service.create()
    kept = hpo(service, "study", "edit", "demo", "--note", "the first with [bold]flow")
    assert (kept.code, kept.out) == (0, "the note of study demo is kept\n")
    assert "\nnote: the first with [bold]flow\n" in hpo(service, "study", "show", "demo").out
    hpo(service, "study", "stop", "demo", "--yes")
    assert hpo(service, "study", "edit", "demo", "--note", "").out == "the note of study demo is removed\n"
    assert "note:" not in hpo(service, "study", "show", "demo").out
    assert [line[21:] for line in hpo(service, "logs", "demo").out.splitlines()][1:] == [
        "admin of the test changed the note of the study",
        "the study was stopped by admin of the test",
        "admin of the test removed the note of the study",
    ]
    assert hpo(service, "study", "edit", "demo", "--note", "x" * 20_001).code == 2

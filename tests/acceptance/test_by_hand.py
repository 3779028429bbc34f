"""What README.md promises of the commands, with the real ones."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.documents import blocks

from .conftest import Service, tiny_spec, wait_for

pytestmark = pytest.mark.xdist_group("by hand")  # one service, and one study that is trained once


@pytest.fixture(scope="module")
def finished(service: Service, tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A study that was made from a file, trained by one worker, and has ended."""
    spec_file = tmp_path_factory.mktemp("spec") / "study.yaml"
    spec_file.write_text(yaml.safe_dump(tiny_spec(tiny_videos, "by-hand")))
    service.run("hpo", "study", "create", spec_file)
    with service.worker("--exit-when-idle", "600"), service.client() as client:
        wait_for(lambda: client.study("by-hand")["state"] == "completed", seconds=240)
    return "by-hand"


@pytest.mark.slow
def test_all_trials_of_the_budget_have_a_score(service: Service, finished: str) -> None:
    trials = json.loads(service.run("hpo", "trials", finished, "--json").stdout)
    assert [trial["number"] for trial in trials] == [0, 1, 2]
    assert {trial["state"] for trial in trials} == {"completed"}
    assert all(0 <= trial["metrics"]["val_top1"] <= 1 and trial["epochs_done"] == 2 for trial in trials)


@pytest.mark.slow
def test_the_best_trial_is_the_one_of_which_most_is_believed(service: Service, finished: str) -> None:
    best = json.loads(service.run("hpo", "best", finished, "--json").stdout)
    with service.client() as client:
        configurations = client.answer(finished)["configurations"]
    believed = max(configurations, key=lambda found: found["estimates"]["val_top1"]["believed"])
    assert len(configurations) == 3
    assert best["number"] == believed["chosen"]


@pytest.mark.slow
def test_training_the_export_again_gives_the_same_digits(service: Service, finished: str, tmp_path: Path) -> None:
    service.run("hpo", "export", finished, "-o", tmp_path / "best.yaml")
    exported = yaml.safe_load((tmp_path / "best.yaml").read_text())
    printed = service.run("hpo", "train", tmp_path / "best.yaml").stdout
    found = re.search(r"val_top1 = (\S+) \(the same\)", printed)
    assert found, printed
    assert float(found[1]) == exported["objectives"]["val_top1"]


@pytest.mark.slow
def test_the_sealed_test_list_is_opened_on_request_and_once(service: Service, finished: str, tmp_path: Path) -> None:
    service.run("hpo", "export", finished, "-o", tmp_path / "best.yaml")
    refused = service.run("hpo", "evaluate", tmp_path / "best.yaml", check=False)
    assert refused.returncode == 1
    assert "add --final" in refused.stderr
    first = service.run("hpo", "evaluate", tmp_path / "best.yaml", "--final").stdout
    assert "sealed videos" in first
    assert "chance is 0.500" in first
    assert "was opened on" in service.run("hpo", "evaluate", tmp_path / "best.yaml", "--final").stdout


@pytest.mark.slow
def test_the_logs_list_the_events_in_order(service: Service, finished: str) -> None:
    story = service.run("hpo", "logs", finished).stdout
    assert story.index("the study was created by") < story.index("was proposed by") < story.index("began on")


def test_a_study_is_made_with_the_curl_of_the_readme(service: Service, tiny_videos: Path, tmp_path: Path) -> None:
    [command] = [block.text for block in blocks("README.md", "bash") if block.text.startswith("curl ")]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(tiny_spec(tiny_videos, "by-curl")))
    done = service.shell(command, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["name"], made["state"]) == ("by-curl", "active")
    service.run("hpo", "study", "stop", "by-curl", "--yes")
    service.run("hpo", "study", "delete", "by-curl", "--yes")
    assert "by-curl" not in service.run("hpo", "study", "list").stdout


def test_a_space_includes_what_the_zoo_recommends(service: Service, tiny_videos: Path, tmp_path: Path) -> None:
    raw = tiny_spec(tiny_videos, "by-include")
    raw["task"]["base"] = {"clip": {"frames": 16, "size": 32}}
    raw["space"] = {"include": ["slowfast_r18", "r2plus1d_18"]}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(raw))
    service.run("hpo", "study", "create", tmp_path / "study.yaml")
    spec = json.loads(service.run("hpo", "study", "show", "by-include", "--json").stdout)["spec"]
    service.run("hpo", "study", "stop", "by-include", "--yes")
    service.run("hpo", "study", "delete", "by-include", "--yes")
    assert spec["space"]["model"]["choices"] == ["slowfast_r18", "r2plus1d_18"]
    assert spec["space"]["model.alpha"]["when"] == {"model": ["slowfast_r18"]}
    raw["space"] = {"include": "slowfst_r18"}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(raw))
    done = service.run("hpo", "study", "create", tmp_path / "study.yaml", check=False)
    assert done.returncode == 2
    assert "space.include: there is no model 'slowfst_r18'; did you mean 'slowfast_r18'" in done.stderr


def test_a_wrong_spec_is_reported_by_field_and_stores_nothing(
    service: Service, tiny_videos: Path, tmp_path: Path
) -> None:
    raw = tiny_spec(tiny_videos, "wrong")
    raw["space"]["lr"]["low"] = 0
    raw["space"]["model"]["choices"][1] = "r2plus1_18"
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(raw))
    done = service.run("hpo", "study", "create", tmp_path / "wrong.yaml", check=False)
    assert done.returncode == 2
    assert "space.lr: a logarithmic range must start above 0" in done.stderr
    raw["space"]["lr"]["low"] = 1e-3
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(raw))
    done = service.run("hpo", "study", "create", tmp_path / "wrong.yaml", check=False)
    assert done.returncode == 2
    assert "space.model.choices" in done.stderr
    assert "r2plus1d_18" in done.stderr
    assert service.run("hpo", "study", "show", "wrong", check=False).returncode == 3


def test_a_taken_name_is_a_conflict(service: Service, tiny_videos: Path, tmp_path: Path) -> None:
    (tmp_path / "twice.yaml").write_text(yaml.safe_dump(tiny_spec(tiny_videos, "twice")))
    service.run("hpo", "study", "create", tmp_path / "twice.yaml")
    done = service.run("hpo", "study", "create", tmp_path / "twice.yaml", check=False)
    assert done.returncode == 4
    assert "exists already" in done.stderr


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        (("hpo", "best", "nowhere"), 3, "nowhere"),
        (("hpo", "--url", "http://127.0.0.1:9", "study", "list"), 6, "nothing answers at http://127.0.0.1:9"),
        (("hpo", "--token-file", "/nowhere", "study", "list"), 1, "/nowhere cannot be read"),
        (("hpo", "data", "check", "/nowhere"), 1, "/nowhere"),
        (("hpo", "train", "/nowhere.yaml"), 2, "/nowhere.yaml: cannot be read"),
        (("hpo", "study", "create", "/nowhere.yaml"), 2, "/nowhere.yaml: cannot be read"),
        (("hpo", "study", "paws", "x"), 2, "No such command"),
        (("hpo-worker",), 1, "either --gpu N or --cpu"),
        (("hpo-worker", "--gpu", "99"), 1, "GPU 99 cannot be used"),
    ],
)
def test_a_mistake_gets_a_sentence_and_a_status(
    service: Service, command: tuple[str, ...], status: int, words: str
) -> None:
    done = service.run(*command, check=False)
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_named(service: Service, tmp_path: Path) -> None:
    port = json.loads((service.home / "server.json").read_text())["url"].rpartition(":")[2]
    done = service.run("hpo", "--home", tmp_path / "other", "serve", "--port", port, check=False)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr

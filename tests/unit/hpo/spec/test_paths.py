"""Paths in a spec mean the same on every machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpo.spec import StudySpec, VideoTask, parse_spec
from hpo.spec.paths import relative_paths, with_absolute_paths


def _spec(**dataset: Any) -> StudySpec:
    return parse_spec(
        {
            "name": "demo",
            "objectives": [{"metric": "val_top1"}],
            "task": {"dataset": dataset, "epochs": 3},
            "space": {"lr": {"type": "float", "low": 1e-4, "high": 0.1}},
            "budget": {"trials": 3},
        }
    )


@pytest.mark.parametrize("root", ["videos", "./videos", "../videos", "~/videos", "~anna/videos"])
def test_a_path_that_is_not_absolute_is_an_issue_of_its_field(root: str) -> None:
    (issue,) = relative_paths(_spec(root=root))
    assert issue.path == "task.dataset.root"
    assert issue.message.startswith(f"{root!r} is not an absolute path")


def test_weights_of_the_flow_are_a_path_too() -> None:
    found = relative_paths(_spec(root="/videos", flow="raft", flow_weights="raft.pth"))
    assert [issue.path for issue in found] == ["task.dataset.flow_weights"]


def test_absolute_paths_have_no_issue() -> None:
    assert relative_paths(_spec(root="/videos", flow="raft", flow_weights="/raft.pth")) == []


@pytest.mark.parametrize(
    ("root", "meant"),
    [("videos", "/here/videos"), ("../videos", "/here/../videos"), ("/videos", "/videos"), ("~/v", "/home/ann/v")],
)
def test_paths_are_those_of_the_person_who_creates_the_study(
    monkeypatch: pytest.MonkeyPatch, root: str, meant: str
) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    spec = _spec(root=root, flow="raft", flow_weights="raft.pth")
    made = with_absolute_paths(spec, Path("/here"))
    assert isinstance(made.task, VideoTask)
    assert isinstance(spec.task, VideoTask)
    assert (made.task.dataset.root, made.task.dataset.flow_weights) == (meant, "/here/raft.pth")
    assert relative_paths(made) == []
    assert made.task.model_copy(update={"dataset": spec.task.dataset}) == spec.task, "nothing else is changed"

"""Events in sentences: each kind that the service records has one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hpo.sentences import KINDS, event_sentence

ROOT = Path(__file__).resolve().parents[3]
NOT_EVENTS = {"trial.progress", "trial.id", "trial.number", "trial.study_id", "study.id"}
OF_NO_STUDY = {"study.deleted"}


def test_every_kind_that_is_recorded_has_a_sentence() -> None:
    sources = [*(ROOT / "hpo" / "store").glob("*.py"), *(ROOT / "hpo" / "service").glob("*.py")]
    recorded = {
        kind
        for source in sources
        for kind in re.findall(r'"((?:study|trial|worker|host)\.[a-z_]+)"', source.read_text())
    }
    assert recorded - NOT_EVENTS - OF_NO_STUDY <= KINDS


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_sentence_needs_no_detail(kind: str) -> None:
    sentence = event_sentence(kind, {}, number=3 if kind.startswith("trial") else None, actor="ann")
    assert "None" not in sentence.replace("epoch None", "")
    assert not sentence.endswith((".", " ", ":"))


@pytest.mark.parametrize(
    ("kind", "detail", "expected"),
    [
        ("trial.claimed", {"attempt": 1}, "trial 3 began on ann"),
        (
            "trial.weights",
            {"weights": [{"source": "a.pth", "loaded": 270, "reset": {"count": 2}, "kept": {"count": 1}}]},
            "trial 3 loaded its pre-trained weights: a.pth (270 tensors, 3 drawn anew)",
        ),
        (
            "study.edited",
            {"budget": {"trials": 80, "gpu_hours": None, "target": {"val_top1": 0.9}}},
            "ann changed the budget: trials 80, gpu_hours none, target val_top1 0.9",
        ),
        ("trial.claimed", {"attempt": 2}, "trial 3 continues on ann (attempt 2)"),
        ("trial.measured", {"step": 4, "metrics": {"val_top1": 0.51234}}, "trial 3 finished epoch 4: val_top1 0.5123"),
        (
            "trial.released",
            {"reason": "crashed", "fault": "storage", "message": "the disk is full"},
            "trial 3 was given back: ann failed (storage): the disk is full",
        ),
        ("trial.failed", {"failure_kind": "oom"}, "trial 3 failed on ann: oom"),
        ("trial.suggested", {"generator": "ax", "replicate_of": None}, "trial 3 was proposed by ax"),
        ("trial.suggested", {"replicate_of": 1}, "trial 3 trains the configuration of trial 1 again"),
        ("trial.something_new", {}, "trial 3: something_new (ann)"),
    ],
)
def test_what_a_trial_did(kind: str, detail: dict[str, object], expected: str) -> None:
    assert event_sentence(kind, detail, number=3, actor="ann") == expected


@pytest.mark.parametrize(
    ("kind", "detail", "expected"),
    [
        ("study.paused", {"reason": "no data"}, "the study was paused by ann: no data"),
        ("worker.quarantined", {"fault": "device", "message": "lost"}, "worker ann is in quarantine: device (lost)"),
        ("worker.released", {"worker": "w1"}, "worker w1 gets trials again, released by ann"),
        ("worker.released", {"reason": "it trained an epoch"}, "worker ann gets trials again: it trained an epoch"),
        ("study.warm_started", {"study": "old", "taken": 7}, "the study begins with what old has found, 7 trials"),
    ],
)
def test_what_happened_to_a_study(kind: str, detail: dict[str, object], expected: str) -> None:
    assert event_sentence(kind, detail, number=None, actor="ann") == expected

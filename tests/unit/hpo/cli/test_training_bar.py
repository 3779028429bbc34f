"""The bar of `hpo train` on a terminal that is a string, and its lines without a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from hpo.cli import training_bar as module
from hpo.cli.training_bar import training_bar
from hpo.protocol import Measurement
from workers.process.messages import Alive, EpochDone, Event, Note, Preparation

from ...workers.tiny import PROGRESS

METRICS = {"train_loss": 1.5, "val_loss": 1.25, "val_top1": 0.5}
EPOCH = EpochDone(
    measurement=Measurement(step=1, metrics=METRICS, wall_seconds=2.0, gpu_seconds=2.0),
    checkpoint="/c/1.pt",
    peak_memory_bytes=1,
)


def _shown(monkeypatch: pytest.MonkeyPatch, *events: Event, terminal: bool) -> tuple[str, str]:
    """Return what standard output and standard error show of the events."""
    shown = io.StringIO(), io.StringIO()
    out = Console(file=shown[0], width=200, force_terminal=terminal, soft_wrap=True, highlight=False)
    err = Console(file=shown[1], width=200, force_terminal=terminal, soft_wrap=True, highlight=False)
    monkeypatch.setattr(module, "out", out)
    monkeypatch.setattr(module, "err", err)
    with training_bar() as show:
        for event in events:
            show(event)
    return shown[0].getvalue(), shown[1].getvalue()


def test_the_bar_shows_the_preparation_and_the_running_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    preparation = Preparation(stage="decoding", done=3, total=12, seconds_left=90.0)
    _, of_data = _shown(monkeypatch, Alive(is_training=False, steps=3, progress=preparation), terminal=True)
    _, of_epoch = _shown(monkeypatch, Alive(is_training=True, steps=3, progress=PROGRESS), terminal=True)
    for text, parts in (
        (of_data, ("data set: decoding", "3/12", "2 min left")),
        (of_epoch, ("epoch 2/3", "5/9", "loss 1.2500, lr 0.01, 80 clips/s, 25 % waiting for data, 1.0 GiB, 40 s left")),
    ):
        assert [part for part in parts if part not in text] == []


def test_without_a_terminal_there_are_epochs_and_notes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    without_validation = EPOCH.model_copy(
        update={"measurement": EPOCH.measurement.model_copy(update={"step": 2, "metrics": {"train_loss": 1.0}})}
    )
    events = (
        Note(text="a [bold] note"),
        Alive(is_training=True, steps=1, progress=PROGRESS),
        Alive(is_training=True, steps=1),
        EPOCH,
        without_validation,
    )
    out, err = _shown(monkeypatch, *events, terminal=False)
    assert out == (
        "epoch 1: train_loss 1.500, val_loss 1.250, val_top1 0.500 (2.0 s)\nepoch 2: train_loss 1.000 (2.0 s)\n"
    )
    assert err.splitlines() == ["a [bold] note", ""]

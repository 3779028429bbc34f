"""The curve as files: whole lines, each epoch once, and what TensorBoard reads."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from workers.training.curve_files import METRICS_NAME, TENSORBOARD_NAME, CurveFiles
from workers.training.epoch import EpochResult

CURVE = [
    EpochResult(epoch=epoch, metrics={"val_top1": epoch / 10, "train_loss": 1 / epoch}, seconds=2.0)
    for epoch in (1, 2, 3)
]


def _lines(folder: Path) -> list[dict[str, Any]]:
    text = (folder / METRICS_NAME).read_text()
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_each_epoch_is_a_line_with_its_metrics(tmp_path: Path) -> None:
    files = CurveFiles(tmp_path / "new")
    files.restart([])
    assert _lines(tmp_path / "new") == []
    for result in CURVE[:2]:
        files.add(result)
    assert _lines(tmp_path / "new") == [
        {"epoch": 1, "seconds": 2.0, "val_top1": 0.1, "train_loss": 1.0},
        {"epoch": 2, "seconds": 2.0, "val_top1": 0.2, "train_loss": 0.5},
    ]
    assert [path.name for path in (tmp_path / "new").iterdir()] == [METRICS_NAME]


@pytest.mark.parametrize("left", ["", '{"epoch": 1}\n{"epoch": 2}\n{"epoch": 3}\n{"epo'])
def test_a_resumed_run_has_each_epoch_once_whatever_the_last_one_left(tmp_path: Path, left: str) -> None:
    (tmp_path / METRICS_NAME).write_text(left)
    files = CurveFiles(tmp_path)
    files.restart(CURVE[:2])
    files.add(CURVE[2])
    assert [line["epoch"] for line in _lines(tmp_path)] == [1, 2, 3]
    assert _lines(tmp_path)[0]["val_top1"] == 0.1


class FakeWriter:
    """Keeps scalars; a flush writes them to a file in its folder."""

    def __init__(self, folder: str) -> None:
        self.scalars: list[tuple[str, float, int]] = []
        self.path = Path(folder) / f"events.out.tfevents.{len(list(Path(folder).glob('*')))}"

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def flush(self) -> None:
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_text(json.dumps(self.scalars))

    def close(self) -> None:
        """Has nothing to close."""


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = FakeWriter  # type: ignore[attr-defined]  # a module made up here
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.usefixtures("made_up")
def test_event_files_hold_each_epoch_once(tmp_path: Path) -> None:
    first = CurveFiles(tmp_path, tensorboard=True)
    first.restart([])
    for result in CURVE:
        first.add(result)
    second = CurveFiles(tmp_path, tensorboard=True)  # resumed from the second epoch
    second.restart(CURVE[:2])
    second.add(CURVE[2])
    [written] = (tmp_path / TENSORBOARD_NAME).iterdir()
    assert json.loads(written.read_text()) == [
        [name, value, result.epoch] for result in CURVE for name, value in result.metrics.items()
    ]


def test_without_tensorboard_a_run_goes_on_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    files = CurveFiles(tmp_path, tensorboard=True)
    files.restart([])
    files.add(CURVE[0])
    assert [line["epoch"] for line in _lines(tmp_path)] == [1]
    assert "no files for TensorBoard are written" in caplog.text


def test_tensorboard_reads_the_scalars(tmp_path: Path) -> None:
    # The extra `tensorboard`, which the tests do not install.
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    files = CurveFiles(tmp_path, tensorboard=True)
    files.restart(CURVE[:1])
    files.restart(CURVE[:2])
    files.add(CURVE[2])
    read = accumulators.EventAccumulator(str(tmp_path / TENSORBOARD_NAME)).Reload()
    assert sorted(read.Tags()["scalars"]) == ["train_loss", "val_top1"]
    points = [(point.step, point.value) for point in read.Scalars("val_top1")]
    assert points == [(step, pytest.approx(step / 10)) for step in (1, 2, 3)]

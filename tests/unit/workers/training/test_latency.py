"""The latency of a model: of which clips, in which parts, and which runs count; of its program too."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hpo.errors import SetupError
from hpo.trial import FailureKind, Fault
from workers.errors import NotExportableError
from workers.training import latency as latency_module
from workers.training.failure import classify
from workers.training.latency import LATENCY_METRICS, ONNX_LATENCY_METRICS, RunLatency, latency
from workers.training.programs import OnnxProgram
from workers.training.reproducibility import Runtime

CPU = Runtime(device=torch.device("cpu"), threads=1)
IN_PYTORCH = tuple(name for name in LATENCY_METRICS if name not in ONNX_LATENCY_METRICS)


class _Clock(nn.Module):
    """Takes a second for each clip by a clock that it moves itself, and ten more in its first runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, slow_runs: int = 0) -> None:
        super().__init__()
        self.now, self.slow = 0.0, slow_runs
        self.seen: list[int] = []
        self.held: set[tuple[int, int]] = set()
        """Which clips were in memory, and how many."""
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def forward(self, clips: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.seen.append(len(clips))
        self.held.add((clips.untyped_storage().data_ptr(), clips.untyped_storage().nbytes() // clips[0].nbytes))
        self.now += len(clips) / 1000 + (10 if len(self.seen) <= self.slow else 0)
        return clips


def _measured(
    model: nn.Module, *, batch_size: int = 4, most_clips: int = 8, wanted: tuple[str, ...] = IN_PYTORCH
) -> dict[str, float]:
    shapes = {"rgb": (3, 2, 4, 4)}
    return latency(
        model,
        shapes,
        wanted=wanted,
        batch_size=batch_size,
        most_clips=most_clips,
        runtime=CPU,
        precision="fp32",
        each=lambda: None,
    )


def test_one_clip_and_a_batch_are_timed_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(monkeypatch, slow_runs=latency_module._WARM_UP).train()
    found = _measured(clock)
    assert found == pytest.approx(dict(zip(IN_PYTORCH, (1, 1, 4, 4), strict=True)))
    assert clock.training


def test_a_batch_that_does_not_fit_is_timed_in_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(monkeypatch)
    assert _measured(clock, batch_size=7, most_clips=3)["batch_latency_ms"] == pytest.approx(7)
    assert clock.seen[-3:] == [3, 3, 1]
    assert [count for _, count in clock.held] == [3], "no more than a validation holds at once"


@pytest.mark.parametrize(
    ("wanted", "sizes"),
    [
        (("latency_ms",), {1}),
        (("latency_p95_ms", "latency_ms"), {1}),
        (("batch_latency_p95_ms",), {4}),
        (("val_top1",), set()),
    ],
)
def test_only_what_is_wanted_is_run(monkeypatch: pytest.MonkeyPatch, wanted: tuple[str, ...], sizes: set[int]) -> None:
    clock = _Clock(monkeypatch)
    assert set(_measured(clock, wanted=wanted)) == set(wanted) & set(LATENCY_METRICS)
    assert set(clock.seen) == sizes


def test_a_slow_model_is_run_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(monkeypatch)
    _measured(clock, batch_size=1000, most_clips=1000)
    runs = [clock.seen.count(size) - latency_module._WARM_UP for size in (1, 1000)]
    assert runs == [latency_module._MOST, latency_module._FEWEST]


class _Means(nn.Module):
    """A network of the means of clips, and of how many it sees at once where it may not see any number."""

    def __init__(self, *, one_at_a_time: bool = False) -> None:
        super().__init__()
        self.weights = nn.Linear(3, 5)
        self.one_at_a_time = one_at_a_time

    def forward(self, clips: Tensor) -> Tensor:
        if self.one_at_a_time and len(clips) != 1:
            raise ValueError("one clip at a time")
        logits: Tensor = self.weights(clips.mean((2, 3, 4)))
        return logits


class _Runs(OnnxProgram):
    """Notes the clips of each run."""

    seen: list[Tensor]

    def __call__(self, clips: tuple[Tensor, ...]) -> Tensor:
        logits = super().__call__(clips)
        type(self).seen += clips
        torch.testing.assert_close(logits, self.expected(clips[0]), rtol=1e-5, atol=1e-5)
        return logits

    expected: Any


def test_as_onnx_the_written_file_is_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = _Means().train()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(_Runs, "seen", [], raising=False)
    monkeypatch.setattr(_Runs, "expected", staticmethod(model), raising=False)
    monkeypatch.setattr(latency_module, "OnnxProgram", _Runs)
    drawn = torch.get_rng_state()
    found = _measured(model, batch_size=7, most_clips=3, wanted=("onnx_latency_p95_ms", "onnx_batch_latency_ms"))
    assert set(found) == {"onnx_latency_p95_ms", "onnx_batch_latency_ms"}
    assert min(found.values()) > 0
    assert [len(clips) for clips in _Runs.seen[:3]] == [1, 1, 1]
    assert [len(clips) for clips in _Runs.seen[-3:]] == [3, 3, 1]
    assert torch.equal(torch.get_rng_state(), drawn)
    assert model.training
    assert list(tmp_path.glob("video-hpo-*")) == []


def test_a_program_of_one_clip_computes_a_batch_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _Means(one_at_a_time=True)
    monkeypatch.setattr(_Runs, "seen", [], raising=False)
    monkeypatch.setattr(_Runs, "expected", staticmethod(model), raising=False)
    monkeypatch.setattr(latency_module, "OnnxProgram", _Runs)
    assert _measured(model, wanted=("onnx_batch_latency_ms",))["onnx_batch_latency_ms"] > 0
    assert {len(clips) for clips in _Runs.seen} == {1}


class _Untraceable(nn.Module):
    def forward(self, clips: Tensor) -> Tensor:
        return clips if float(clips.sum()) > 0 else -clips


def test_a_model_that_cannot_be_written_makes_the_configuration_invalid() -> None:
    with pytest.raises(NotExportableError, match="cannot be written as ONNX, of which the study names") as caught:
        _measured(_Untraceable(), wanted=("onnx_latency_ms",))
    failure = classify(caught.value)
    assert failure.kind is FailureKind.INVALID
    assert "\n" not in failure.message


def test_a_missing_library_is_the_machines_fault_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    RunLatency(["latency_ms"], CPU, "fp32")
    with pytest.raises(SetupError, match=r"pip install 'video-hpo\[onnx\]'") as caught:
        RunLatency(["onnx_latency_ms"], CPU, "fp32")
    assert classify(caught.value).kind is Fault.FILES


def test_a_runtime_for_cpus_is_refused_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    runtime = Runtime(device=torch.device("cuda"), threads=1)
    with pytest.raises(SetupError, match="install onnxruntime-gpu"):
        RunLatency(["onnx_latency_ms"], runtime, "fp32")

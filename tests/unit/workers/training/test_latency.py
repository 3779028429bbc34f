"""The latency of a model: of which clips, in which parts, and which runs count."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

from workers.training import latency as latency_module
from workers.training.latency import LATENCY_METRICS, latency

CPU = torch.device("cpu")


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
    model: nn.Module, *, batch_size: int = 4, most_clips: int = 8, wanted: tuple[str, ...] = LATENCY_METRICS
) -> dict[str, float]:
    shapes = {"rgb": (3, 2, 4, 4)}
    return latency(
        model,
        shapes,
        wanted=wanted,
        batch_size=batch_size,
        most_clips=most_clips,
        device=CPU,
        precision="fp32",
        each=lambda: None,
    )


def test_one_clip_and_a_batch_are_timed_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(monkeypatch, slow_runs=latency_module._WARM_UP).train()
    found = _measured(clock)
    assert found == pytest.approx(dict(zip(LATENCY_METRICS, (1, 1, 4, 4), strict=True)))
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

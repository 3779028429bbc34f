"""The benchmark of models: turns, ratios, and peers that are the same networks."""

from __future__ import annotations

import pytest
import torch

from benchmarks import zoo_speed
from benchmarks.zoo_speed import Row, Shape

CPU = torch.device("cpu")


def test_contestants_take_turns_and_are_compared_within_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    clock = {"peer": iter((9.0, 4.0, 6.0)), "same": iter((9.0, 2.0, 2.0))}
    monkeypatch.setattr(
        zoo_speed, "training_step", lambda model, shape, variant, *rest: "same" if variant.ours else "peer"
    )

    def timed(step: str, device: torch.device) -> float:
        order.append(step)
        return next(clock[step])

    monkeypatch.setattr(zoo_speed, "_time", timed)
    shape = Shape(clips=2, frames=8, size=32)
    peer, same = zoo_speed.measure("r3d_18", shape, ["peer", "same"], device=CPU, precision="fp32", turns=2)
    assert order == ["peer", "same", "same", "peer", "peer", "same"]
    assert (peer.seconds, same.seconds) == ([4.0, 6.0], [2.0, 2.0])
    assert (peer.ratios, same.ratios) == ([1.0, 1.0], [2.0, 3.0])


def test_a_line_shows_speed_and_the_spread_of_the_ratio() -> None:
    row = Row(
        model="r3d_18",
        shape=str(Shape(clips=4, frames=8, size=32)),
        device="cpu",
        precision="fp32",
        variant="same",
        clips=4,
        seconds=[1.0, 2.0, 4.0],
        ratios=[1.0, 1.5, 0.5],
    )
    assert zoo_speed.line(row) == "| r3d_18 | 4 x 8 x 32² | same | 2.00 | 1.00 (0.50 to 1.50) |"


def test_a_contestant_trains() -> None:
    shape = Shape(clips=2, frames=16, size=32)
    rows = zoo_speed.measure("s3d", shape, ["peer", "defaults"], device=CPU, precision="fp32", turns=1)
    assert [row.variant for row in rows] == ["peer", "defaults"]
    assert all(row.seconds[0] > 0 for row in rows)


@pytest.mark.parametrize("name", zoo_speed.CPU_SHAPES)
def test_peers_are_the_same_networks(name: str) -> None:
    with torch.device("meta"):
        zoo_speed._peer(name, zoo_speed.CPU_SHAPES[name])

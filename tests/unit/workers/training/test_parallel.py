"""Two ranks that train one model, as two processes of a CPU: they equal one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from workers.training.parallel import dealt, lost_others, seed_of_rank

from ..tiny import without_timing
from .several import NETWORKS, gradients, trained, trained_on_ranks

FROZEN_NORMS = {"changes": {"dropout": 0.0, "batch_norm": "freeze", "batch_size": 8}, "epochs": 1, "micro_batch": 2}
"""With 12 videos the last batch has 4; each is computed in parts."""
NORMS_THAT_TRAIN = {"changes": {"dropout": 0.0, "precise_bn": True, "ema": 0.9}, "epochs": 1}
UNEVEN = {"changes": {"dropout": 0.0, "batch_size": 10, "augment.mixup_alpha": 0.8, "augment.flip": 0.5}}
"""The last batch has 2."""
UNFREEZING = {
    "changes": {"freeze": "backbone", "unfreeze_every": 1, "layer_decay": 0.8, "optimizer": "adamw", "lr": 1e-3}
}
"""With dropout, which each rank draws for itself."""
OVERFLOWING = {"changes": {"dropout": 0.0, "batch_norm": "freeze", "ema": 0.9}, "epochs": 1, "overflows_at": 1}
"""On one rank alone."""
CASES: list[dict[str, Any]] = [FROZEN_NORMS, NORMS_THAT_TRAIN, UNEVEN, OVERFLOWING, UNFREEZING]


Computed = tuple[list[dict[str, Any]], dict[str, dict[str, torch.Tensor]]]


@pytest.fixture(scope="module")
def computed(videos: Path, cache_dir: Path, dataset: object) -> Computed:
    return trained_on_ranks(videos, cache_dir, CASES)


@pytest.fixture(scope="module")
def on_ranks(computed: Computed) -> list[dict[str, Any]]:
    return computed[0]


@pytest.mark.parametrize(
    ("number", "tolerance"),
    [
        pytest.param(0, 1e-6, id="frozen norms: up to rounding"),
        pytest.param(1, 2e-4, id="joint norms, their statistics, an average of weights"),
        pytest.param(2, 2e-4, id="mixed clips, a last batch of another size"),
        pytest.param(3, 2e-3, id="fp16, an update left out by all ranks"),
    ],
)
@pytest.mark.usefixtures("runtime")
def test_two_ranks_train_what_one_does(
    videos: Path, cache_dir: Path, on_ranks: list[dict[str, Any]], number: int, tolerance: float
) -> None:
    case = CASES[number]
    one = trained(videos, cache_dir, **{**case, **({"micro_batch": 4} if "micro_batch" in case else {})})
    two = on_ranks[number]
    torch.testing.assert_close(_tensors(two), _tensors(one), atol=tolerance, rtol=tolerance)
    for theirs, ours in zip(two["curve"], one["curve"], strict=True):
        expected = without_timing(ours["metrics"])
        assert without_timing(theirs["metrics"]) == pytest.approx(expected, abs=10 * tolerance)
    assert two["classified"] == one["classified"]
    assert two.get("loss_scale") == one.get("loss_scale")


def _tensors(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the weights that train, and those that are validated."""
    evaluated = {**state["evaluated"]["average"], **state["evaluated"]["statistics"]}
    return {**state["model"], **{f"evaluated {name}": value for name, value in evaluated.items()}}


def test_a_resumed_run_of_two_ranks_equals_an_uninterrupted_one(on_ranks: list[dict[str, Any]]) -> None:
    whole, resumed = on_ranks[-2:]
    assert all(torch.equal(resumed["model"][name], value) for name, value in whole["model"].items())
    first, second = ([state["random"], *state["random_of_others"]] for state in (whole, resumed))
    for of_whole, of_resumed in zip(first, second, strict=True):
        assert torch.equal(of_whole["torch"], of_resumed["torch"])
    assert not torch.equal(first[0]["torch"], first[1]["torch"])  # each rank drops other features


@pytest.mark.parametrize("name", NETWORKS)
def test_two_ranks_have_the_gradients_of_one_with_the_whole_batch(computed: Computed, name: str) -> None:
    shared, whole = computed[1][name], gradients(name)
    assert shared.keys() == whole.keys()
    torch.testing.assert_close(shared, whole, rtol=1e-7, atol=1e-10)


def test_batches_that_were_dealt_to_ranks_come_back_in_their_order() -> None:
    assert dealt([[0, 3, 6], [1, 4], [2, 5]]) == list(range(7))


def test_ranks_draw_other_numbers_and_the_first_those_of_a_run_of_one() -> None:
    assert seed_of_rank(5, 0) == 5
    assert (
        len({seed_of_rank(seed, rank, update=update) for seed in (0, 1) for rank in (1, 2) for update in (0, 9)}) == 8
    )


def test_the_loss_of_a_peer_is_no_cause() -> None:
    assert lost_others(RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1"))
    assert not lost_others(RuntimeError("CUDA out of memory"))
    assert not lost_others(ValueError("gloo"))

"""Compiled blocks on two processes of a CPU: what ranks say to each other is said between blocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed
from torch.multiprocessing.spawn import spawn

from data import open_dataset
from workers.training.compiled import CompiledBlocks
from workers.training.meeting import Meeting
from workers.training.parallel import World, join
from workers.training.reproducibility import Runtime
from workers.training.trainer import Trainer

from ..tiny import tiny_config, tiny_task

RANKS = 2


def _traced(_: CompiledBlocks, graph: Any, inputs: list[Any]) -> Callable[..., Any]:
    from torch._dynamo.backends.debugging import aot_eager

    found: Callable[..., Any] = aot_eager(graph, inputs)
    return found


def _fails(_: CompiledBlocks, graph: Any, inputs: list[Any]) -> Callable[..., Any]:
    raise NotImplementedError("no such operation")


def _state(world: World, videos: Path, cache_dir: Path, *, compile: bool) -> dict[str, Any]:
    dataset = open_dataset(tiny_task(videos).dataset, cache_dir=cache_dir)
    runtime = Runtime(device=torch.device("cpu"), threads=1, compile="blocks" if compile else None)
    config = tiny_config(model="r3d_18").model_copy(update={"hparams": {"width": 8}})
    trainer = Trainer(config, epochs=1, dataset=dataset, runtime=runtime, world=world)
    trainer.run(interrupted=lambda: False, epoch_done=lambda _: None)
    return {**trainer.state(), "compiled": world.gathered(trainer.compiled)}


def _train(rank: int, folder: Path, videos: Path, cache_dir: Path) -> None:
    world = join(rank, RANKS, Meeting(path=str(folder / "meeting")), torch.device("cpu"))
    plain = _state(world, videos, cache_dir, compile=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CompiledBlocks, "_by_inductor", _traced)
        both = _state(world, videos, cache_dir, compile=True)
        if rank == 1:
            patch.setattr(CompiledBlocks, "_by_inductor", _fails)
        one = _state(world, videos, cache_dir, compile=True)
    if world.is_first:
        torch.save([plain, both, one], folder / "states.pt")
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.mark.slow
def test_ranks_compile_each_by_itself(videos: Path, cache_dir: Path, tmp_path: Path) -> None:
    open_dataset(tiny_task(videos).dataset, cache_dir=cache_dir)
    spawn(_train, args=(tmp_path, videos, cache_dir), nprocs=RANKS, join=True)
    plain, both, one = torch.load(tmp_path / "states.pt", weights_only=True)
    assert [state["compiled"] for state in (plain, both, one)] == [[None, None], ["blocks"] * 2, ["blocks", None]]
    for state in (both, one):
        for name, value in plain["model"].items():
            torch.testing.assert_close(state["model"][name], value, rtol=1e-3, atol=1e-4)

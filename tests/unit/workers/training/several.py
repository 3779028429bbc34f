"""Trainings on two processes of a CPU, for comparison with one."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from torch.multiprocessing.spawn import spawn
from torch.nn import functional as F

from data import ClipBatch, open_dataset
from data.clips.share import Share
from workers.training.joint_norm import with_joint_norms
from workers.training.meeting import Meeting
from workers.training.memory_plan import MemoryPlan
from workers.training.parallel import ALONE, World, gradients_of, join
from workers.training.reproducibility import Runtime
from workers.training.step import accumulate
from workers.training.trainer import Trainer

from ...models.tiny import clips, open_branches, plain, tiny
from ..tiny import tiny_config, tiny_task

RANKS = 2
NETWORKS = ("slowfast_r18", "s3d_g")
"""One of two pathways, and one with gates."""


def trained(
    videos: Path,
    cache_dir: Path,
    changes: dict[str, Any],
    *,
    world: World = ALONE,
    epochs: int = 2,
    micro_batch: int | None = None,
    overflows_at: int | None = None,
    stop_at: int | None = None,
    state: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the state after `epochs`, or after `stop_at` updates of the first one; `state` is what it begins at.

    Args:
        overflows_at: the number of an update whose gradients are too large for fp16 on the last rank alone; then the
            loss is scaled as in fp16.
    """
    runtime = Runtime(device=torch.device("cpu"), threads=1)
    dataset = open_dataset(tiny_task(videos).dataset, cache_dir=cache_dir)
    trainer = Trainer(tiny_config(**changes), epochs=epochs, dataset=dataset, runtime=runtime, world=world)
    if overflows_at is not None:
        trainer.precision = "fp16"
        trainer.training_step = replace(trainer.training_step, precision="fp16")
        weights = next(trainer.model.parameters())
        weights.register_hook(
            lambda gradient: (
                gradient * math.inf
                if world.rank == world.size - 1 and trainer.epoch == 0 and trainer.batch == overflows_at
                else None
            )
        )
    if state is not None:
        trainer.load_state(state)
    if micro_batch is not None:
        share = trainer.config.batch_size // world.size
        plan = MemoryPlan.whole(share, evaluation_batch=32)
        trainer.plan = MemoryPlan.from_state({**plan.to_state(), "micro_batch": micro_batch})
    trainer.run(interrupted=lambda: trainer.batch == stop_at, epoch_done=lambda _: None)
    return trainer.state()


def gradients(name: str, world: World = ALONE) -> dict[str, Tensor]:
    """Return the gradients of a small network of full precision for a batch of four clips, its batch norms training."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = tiny(name, **plain(name)).double()
        open_branches(model)
    if world.size > 1:
        model = with_joint_norms(model, torch.device("cpu"))
    shared = gradients_of(model, world)

    def loss_of(part: ClipBatch) -> tuple[Tensor, Tensor]:
        assert isinstance(part.clips, Tensor)
        logits = model(part.clips)
        return F.cross_entropy(logits, part.labels), logits

    places = (world.share or Share(0, 1)).places(4)
    batch = ClipBatch(
        clips=clips(count=4).double()[places],
        labels=torch.arange(4)[places],
        ids=tuple(map(str, places)),
        whole=None if world.share is None else 4,
    )
    shared.renew(loss_of)
    accumulate(loss_of, batch, micro_batch=4, gradients=shared)
    return {key: parameter.grad for key, parameter in model.named_parameters() if parameter.grad is not None}


def trained_on_ranks(
    videos: Path, cache_dir: Path, cases: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, Any]], dict[str, dict[str, Tensor]]]:
    """Return what `RANKS` processes compute.

    Returns:
        The states of :func:`trained`, one for each case, which holds its arguments; the last one is interrupted at its
        second update, and continued, which is one state more. And :func:`gradients` of each of `NETWORKS`.
    """
    with tempfile.TemporaryDirectory() as folder:
        spawn(_train, args=(Path(folder), videos, cache_dir, cases), nprocs=RANKS, join=True)
        states = [torch.load(Path(folder) / f"{number}.pt", weights_only=True) for number in range(len(cases) + 1)]
        return states, torch.load(Path(folder) / "gradients.pt", weights_only=True)


def _train(rank: int, folder: Path, videos: Path, cache_dir: Path, cases: Sequence[dict[str, Any]]) -> None:
    world = join(rank, RANKS, Meeting(path=str(folder / "meeting")), torch.device("cpu"))
    states = [trained(videos, cache_dir, world=world, **case) for case in cases]
    cut = trained(videos, cache_dir, world=world, stop_at=1, **cases[-1])
    if world.is_first:
        torch.save(cut, folder / "cut.pt")
    with world.in_turn():
        cut = torch.load(folder / "cut.pt", weights_only=True)
    states.append(trained(videos, cache_dir, world=world, state=cut, **cases[-1]))
    shared = {name: gradients(name, world) for name in NETWORKS}
    if world.is_first:
        torch.save(shared, folder / "gradients.pt")
        for number, state in enumerate(states):
            torch.save(state, folder / f"{number}.pt")
    distributed.barrier()
    distributed.destroy_process_group()

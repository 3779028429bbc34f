"""Two processes that train the same model under DDP, on two halves of one batch."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import models

from .tiny import clips, open_branches, plain, tiny


def frozen_model(name: str) -> models.VideoModel:
    """Return the same model in every process: float64, training, its batch norms in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = tiny(name, **plain(name)).double()
        open_branches(model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.eval()
    return model


def run_pair(names: list[str]) -> dict[str, dict[str, Tensor]]:
    """Return, by model, the gradients that two processes agreed on; each saw half of ``clips(count=4)``."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(_train, args=(folder, names), nprocs=2, join=True)
        gradients: dict[str, dict[str, Tensor]] = torch.load(Path(folder) / "gradients.pt", weights_only=True)
    return gradients


def _train(rank: int, folder: str, names: list[str]) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    half = slice(2 * rank, 2 * rank + 2)
    gradients = {}
    for name in names:
        model = frozen_model(name)
        # Every parameter must take part: DDP would wait for one that does not, and fail at the next step.
        parallel = DistributedDataParallel(model, find_unused_parameters=False)
        for _ in range(2):
            model.zero_grad()
            F.cross_entropy(parallel(clips(count=4)[half].double()), torch.arange(4)[half]).backward()
        gradients[name] = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    if rank == 0:
        torch.save(gradients, Path(folder) / "gradients.pt")
    distributed.destroy_process_group()

"""Checks that every model must pass: a step of training, compilation, conversion, several processes."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import models

from .ddp import run_pair
from .oracles import relative_gap
from .tiny import COSTLY, IMAGE_BASED, OF_FIXED_SIZE, SIBLINGS, clips, every, open_branches, plain, tiny

STIFF = frozenset({"csn_r101", "csn_r152", "csn_r152_ip", "r2plus1d_50_hara", "s3d_ibm"})
"""Models whose last stage has a single position of the smallest clip: on few such clips the loss is too rough."""
SLOW_IN_BF16 = frozenset(
    {"c3d", "i3d_r50", "mc3_18", "r2plus1d_18", "r2plus1d_18_hara", "r3d_18", "s3d_resnet18"},
)
"""Models of kinds of layers that another, which bf16 on a CPU trains faster, has too."""
LONG_TO_TRACE = frozenset({"i3d_r50", "mc3_18", "r2plus1d_18_hara", "r2plus1d_r50", "s3d_g"})
"""Models of kinds of layers that another, which is traced faster, has too; gates are one multiplication more."""
UNREAD = r"blocks\.(15|23)\.attn\.(rel_pos_\w|pool_q\.pool\.weight)"
"""Of MViT's last block only the class token is read, to which positions and pooled queries mean nothing."""


def loss_of(model: models.VideoModel, clip: Tensor, dtype: torch.dtype) -> Tensor:
    targets = torch.arange(len(clip)) % 4
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        logits = model(clip)
    return F.cross_entropy(logits.float(), targets)


@pytest.mark.parametrize("name", every())
def test_one_step_lowers_the_loss_and_moves_every_parameter(name: str) -> None:
    _check_one_step(name, torch.float32)


@pytest.mark.parametrize("name", every(slow=SIBLINGS | SLOW_IN_BF16))
def test_one_step_in_bf16_lowers_the_loss_and_moves_every_parameter(name: str) -> None:
    _check_one_step(name, torch.bfloat16)


def _check_one_step(name: str, dtype: torch.dtype) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = tiny(name, **plain(name))
        open_branches(model)
        # In bf16 no layer may see two frames: oneDNN then leaves weight gradients of 3x1x1 kernels unwritten.
        long = 48 if name.endswith("_hara") else 32
        size = 64 if name in STIFF else 32
        clip = clips(count=4, frames=8, size=size) if dtype == torch.float32 else clips(count=2, frames=long, size=size)
        before = loss_of(model, clip, dtype)
        before.backward()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            assert parameter.grad.any() or re.match(UNREAD, key), key
            assert parameter.dtype == torch.float32, key
        start = copy.deepcopy(model.state_dict())
        after = []
        # Adam's first step is as long for a stiff parameter as for a slack one; curvature decides how long it may be.
        for lr in (1e-2, 3e-3, 1e-3, 1e-4):
            model.load_state_dict(start)
            torch.optim.Adam(model.parameters(), lr=lr).step()
            with torch.no_grad():
                after.append(loss_of(model, clip, dtype).item())
            if after[-1] < before.item():
                break
    assert after[-1] < before.item(), after


@pytest.mark.parametrize("name", every(slow=COSTLY | LONG_TO_TRACE))
def test_compiled_model_computes_the_same(name: str) -> None:
    model = tiny(name, **plain(name))
    open_branches(model)
    model.eval()
    clip = clips(frames=8)
    torch._dynamo.reset()
    # fullgraph: a break in the graph is an error here, as it would cost speed unseen.
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(clip), model(clip), rtol=1e-4, atol=1e-5)
    torch._dynamo.reset()


@pytest.mark.parametrize("name", every())
def test_conversion_to_synchronised_norms_changes_no_number(name: str) -> None:
    model = tiny(name, **plain(name))
    open_branches(model)
    state = copy.deepcopy(model.state_dict())
    twin = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model))
    assert isinstance(twin, models.VideoModel)
    kinds = [type(module) for module in twin.modules()]
    assert not {nn.BatchNorm2d, nn.BatchNorm3d} & set(kinds)
    assert twin.state_dict().keys() == state.keys()
    assert all(torch.equal(twin.state_dict()[key], state[key]) for key in state)
    if nn.SyncBatchNorm in kinds:
        norms = [module for module in twin.modules() if isinstance(module, nn.SyncBatchNorm)]
        ours = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d)]
        assert [(n.eps, n.momentum) for n in norms] == [(n.eps, n.momentum) for n in ours]
    with torch.no_grad():
        # Batch statistics; without a process group there is nothing to synchronise, on a CPU either.
        assert torch.equal(model(clips()), twin(clips()))
    # And back: a converted model's weights are those of a plain one.
    model.load_state_dict(twin.state_dict(), strict=True)


@pytest.mark.slow  # of two models, tests/unit/workers/training/test_parallel.py compares joint norms too
def test_two_processes_are_one_with_the_joint_batch() -> None:
    names = [name for name in models.list_models() if name not in IMAGE_BASED | OF_FIXED_SIZE]
    shared = run_pair(names)
    for name in names:
        joint = frozen_gradients(name, clips(count=4), torch.arange(4))
        assert shared[name].keys() == joint.keys()
        for key, gradient in joint.items():
            assert relative_gap(shared[name][key], gradient) < 1e-10 or not gradient.abs().max() > 1e-12, (name, key)


def frozen_gradients(name: str, clip: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Return a model's gradients of one loss, in float64, batch norms in evaluation mode."""
    from .ddp import frozen_model

    model = frozen_model(name)
    F.cross_entropy(model(clip.double()), targets).backward()
    return {key: parameter.grad for key, parameter in model.named_parameters() if parameter.grad is not None}

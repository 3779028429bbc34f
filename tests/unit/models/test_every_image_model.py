"""Checks that every model of 2-D convolutions must pass, of one clip or of two: training, formats, conversions."""

from __future__ import annotations

import copy
import pickle
import pkgutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import models
from models.architectures.frame_model import FrameModel

from .oracles import relative_gap
from .tiny import IMAGE_BASED, open_branches

Clips = Tensor | tuple[Tensor, Tensor]

_FLOW_CHANNELS = 4
_QUICK = {
    "blvnet_tam_50",
    "resnet50",
    "stmulnet_r18",
    "tam_inception_v1",
    "tsm_resnet18",
    "timm_frames",
    "torchvision_frames",
    "trn_resnet18",
    "two_stream_resnet18",
    "vgg16_bn",
    "vgg16_reducedfc",
}
"""With the options below, models that run all the code there is; the others are slow tests."""
NAMES = [name if name in _QUICK else pytest.param(name, marks=pytest.mark.slow) for name in sorted(IMAGE_BASED)]
_VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("tsn_resnet18", {"non_local": True, "temporal_stride": True, "temporal_module": "max"}),
    ("tsm_resnet18", {"non_local": True, "non_local_form": "tsm_dot_product"}),
    ("tam_resnet18", {"blend_frames": 5, "blend_method": "max", "blend_depthwise": False}),
    ("stmulnet_r34", {"gate_block": 2, "gate_preact": False, "temporal_norm": True, "pool_order": "space_first"}),
    ("inception_v3", {"aux": True}),
    ("timm_frames", {"temporal_module": "aggregation"}),
]
OPTIONS: list[Any] = [*NAMES, *_VARIANTS]
IDS = [case if isinstance(case, str) else None for case in OPTIONS]
_QUICK_TO_TRACE = {"stmulnet_r18", "timm_frames", "trn_resnet18", "tsm_resnet18", "vgg16_reducedfc"}
TRACED = [
    *(name if name in _QUICK_TO_TRACE else pytest.param(name, marks=pytest.mark.slow) for name in sorted(IMAGE_BASED)),
    *(case if case[0] == "tam_resnet18" else pytest.param(case, marks=pytest.mark.slow) for case in _VARIANTS),
]
"""The networks with layers of their own that are traced fastest; tracing any of the others takes seconds."""


def test_models_of_images_are_networks_that_see_each_frame_by_itself() -> None:
    of_images = [info for name in models.list_models() if (info := models.model_info(name)).of_images]
    assert len(of_images) >= 16
    for info in of_images:
        assert issubclass(pkgutil.resolve_name(info.builder), FrameModel), info.name
        assert (info.min_frames, info.inputs) == (1, ("clip",)), info.name
        assert not {"segments", "shift_place", "blend_frames"} & set(info.defaults()), info.name


def unpack(case: Any) -> tuple[str, dict[str, Any]]:
    return (case, {}) if isinstance(case, str) else case


def build(name: str, **options: Any) -> models.VideoModel:
    """Return `name` built as narrow as possible, with the same weights every time."""
    known = models.model_info(name).defaults()
    narrow: dict[str, Any] = {"flow_channels": _FLOW_CHANNELS} if "flow_channels" in known else {}
    if "width" in known:
        narrow["width"] = 8
    if "backbone" in known:
        narrow["backbone"] = "test_resnet" if name == "timm_frames" else "mobilenet_v3_small"
    if "relations" in known:
        # Draws would make every pass another network.
        narrow |= {"relations": 0, "segments": 4}
    if "blend_init" in known:
        # The other start puts many values on the kink of a ReLU, where no gradient foretells what a step does.
        narrow["blend_init"] = "random"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.create_model(name, **{"num_classes": 4, "dropout": 0.0, **narrow, **options})
        open_branches(model)
        if name.endswith(("101", "152")):
            # So many branches of full size make the loss chaotic: in bf16 its own rounding outweighs a step.
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    nn.init.uniform_(module.weight, 0.1, 0.3)
    return model


def inputs(name: str, count: int = 2, frames: int = 4) -> Clips:
    """Return the same clips every time, of the fewest pixels that give the model's last maps more than one place."""
    info = models.model_info(name)
    size = {75: 75, 92: 92}.get(info.min_size, 40)
    generator = torch.Generator().manual_seed(0)

    def clip(channels: int) -> Tensor:
        return torch.randn(count, channels, frames, size, size, generator=generator)

    return clip(3) if len(info.inputs) == 1 else (clip(3), clip(_FLOW_CHANNELS))


def converted(clips: Clips, **how: Any) -> Clips:
    return clips.to(**how) if isinstance(clips, Tensor) else (clips[0].to(**how), clips[1].to(**how))


def loss_of(model: Any, clips: Clips, dtype: torch.dtype = torch.float32) -> Tensor:
    first = clips if isinstance(clips, Tensor) else clips[0]
    with torch.autocast("cpu", dtype=dtype, enabled=dtype == torch.bfloat16):
        loss: Tensor
        loss, logits = model.training_loss(clips, torch.arange(len(first)) % 4, F.cross_entropy)
    assert logits.shape == (len(first), 4)
    return loss.float()


@pytest.mark.parametrize("case", OPTIONS, ids=IDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_one_step_lowers_the_loss_and_moves_every_parameter(case: Any, dtype: torch.dtype) -> None:
    name, options = unpack(case)
    model = build(name, **options)
    clips = inputs(name, count=4)
    before = loss_of(model, clips, dtype)
    before.backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        # What a batch norm takes away again has no gradient but rounding: a bias before it, in float32.
        assert parameter.grad.any() or key.endswith("bias"), key
    start = copy.deepcopy(model.state_dict())
    after = []
    # Adam's first step is as long for a stiff parameter as for a slack one; curvature decides how long it may be.
    for lr in (1e-2, 3e-3, 1e-3, 1e-4):
        model.load_state_dict(start)
        torch.optim.Adam(model.parameters(), lr=lr).step()
        with torch.no_grad():
            after.append(loss_of(model, clips, dtype).item())
        if after[-1] < before.item():
            break
    assert after[-1] < before.item(), after


@pytest.mark.parametrize("case", TRACED)
def test_compiled_model_computes_the_same(case: Any) -> None:
    name, options = unpack(case)
    model = build(name, **options).eval()
    clips = inputs(name)
    torch._dynamo.reset()
    # fullgraph: a break in the graph is an error here, as it would cost speed unseen.
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(clips), model(clips), rtol=1e-4, atol=1e-5)
    torch._dynamo.reset()


@pytest.mark.parametrize("layout", [torch.channels_last, torch.channels_last_3d], ids=str)
@pytest.mark.parametrize("case", OPTIONS, ids=IDS)
def test_channels_last_computes_the_same(case: Any, layout: torch.memory_format) -> None:
    name, options = unpack(case)
    model = build(name, **options).double().eval()
    clips = converted(inputs(name), dtype=torch.float64)
    with torch.no_grad():
        expected = model(clips)
        model.to(memory_format=layout)
        kernel = next(parameter for parameter in model.parameters() if parameter.ndim == 4 and parameter.shape[1] > 1)
        assert kernel.is_contiguous(memory_format=torch.channels_last)
        actual = model(converted(clips, memory_format=torch.channels_last_3d))
    assert relative_gap(actual, expected) < 1e-10


@pytest.mark.parametrize("case", OPTIONS, ids=IDS)
def test_state_dict_copy_and_pickle_round_trips(case: Any) -> None:
    name, options = unpack(case)
    model, other = build(name, **options), build(name, **options)
    clips = inputs(name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
        model(clips)  # Moves the running statistics.
        model.eval()
        other.eval()
        expected = model(clips)
        assert not torch.equal(other(clips), expected)
        other.load_state_dict(model.state_dict(), strict=True)
        for twin in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301 -- our own bytes
            assert torch.equal(twin(clips), expected)
            assert twin.settings == model.settings


@pytest.mark.parametrize("case", OPTIONS, ids=IDS)
def test_conversion_to_synchronised_norms_changes_no_number(case: Any) -> None:
    name, options = unpack(case)
    model = build(name, **options)
    twin = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model))
    assert isinstance(twin, models.VideoModel)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in twin.modules())
    assert twin.state_dict().keys() == model.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(model(inputs(name)), twin(inputs(name)))
    model.load_state_dict(twin.state_dict(), strict=True)


@pytest.mark.parametrize("case", OPTIONS, ids=IDS)
def test_groups_hold_every_parameter_once_and_heads_are_reset(case: Any) -> None:
    name, options = unpack(case)
    model = build(name, **options)
    groups = model.param_groups(weight_decay=0.1, head_lr_mult=5.0, bias_lr_mult=2.0, lr=0.1)
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())
    heads = {id(p) for key in model.classifier_names for p in model.get_submodule(key).parameters()}
    biases = {
        id(module.bias)
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None
    }
    for group in groups:
        for parameter in group["params"]:
            key = id(parameter)
            expected = (5.0 if key in heads else 1.0) * (2.0 if key in biases else 1.0)
            assert group["lr_mult"] == expected
            assert group["lr"] == pytest.approx(0.1 * expected)
            assert group["weight_decay"] == (0.1 if parameter.ndim > 1 else 0.0)
    body = {
        key: value.clone() for key, value in model.state_dict().items() if not key.startswith(model.classifier_names)
    }
    model.reset_classifier(7)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in body.items())
    clips: Any = inputs(name)  # a model takes what its card says
    with torch.no_grad():
        assert model.eval()(clips).shape == (2, 7)
        assert model.forward_features(clips).shape == (2, model.num_features)


@pytest.mark.parametrize("name", NAMES)
def test_shapes_at_the_edges(name: str) -> None:
    model = build(name).eval()
    info = models.model_info(name)
    size, frames = info.min_size, info.min_frames

    def clip(*shape: int) -> Clips:
        first = torch.randn(shape[0], 3, *shape[1:])
        return first if len(info.inputs) == 1 else (first, torch.randn(shape[0], _FLOW_CHANNELS, *shape[1:]))

    with torch.no_grad():
        assert model(clip(1, frames, size, size)).shape == (1, 4)
        assert model(clip(2, 2 * frames, size + 1, size + 13)).shape == (2, 4)
        with pytest.raises(models.InvalidClipError, match=f"{name} needs at least {size} pixels"):
            model(clip(1, frames, size - 1, size))
        with pytest.raises(models.InvalidClipError, match=f"{name} needs at least {frames} frames"):
            model(clip(1, frames - 1, size, size))


def test_other_input_channels() -> None:
    model = build("tsm_resnet18", in_channels=10)
    assert model(torch.randn(2, 10, 4, 32, 32)).shape == (2, 4)
    with pytest.raises(models.InvalidClipError, match="takes clips"):
        model(torch.randn(2, 3, 4, 32, 32))


# Billions of multiply-adds for one 224 (Inception-v3: 299) pixel image, as published.
PUBLISHED = {"resnet18": 1.8, "resnet50": 4.1, "resnet101": 7.8, "inception_v3": 5.7, "vgg16": 15.5}


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50", "resnet101", "inception_v3", "vgg16", "stmulnet_r50", "blvnet_tam_50"]
)
def test_cost_is_that_of_the_card_and_as_published(name: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    info = models.model_info(name)
    size, frames = info.clip.size, info.clip.frames
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model = models.create_model(name, num_classes=400).eval()
        clip = torch.empty(1, 3, frames, size, size)
        model(clip if len(info.inputs) == 1 else (clip, torch.empty(1, 20, frames, size, size)))
    billions = counter.get_total_flops() / 2e9
    assert billions == pytest.approx(info.gflops, rel=0.001)
    if name in PUBLISHED:
        assert billions == pytest.approx(PUBLISHED[name], rel=0.03)


# ---- two processes


class Loss(nn.Module):
    """The module that a trainer wraps: the loss of the model, whatever classifiers it has."""

    def __init__(self, model: models.VideoModel) -> None:
        super().__init__()
        self.model: Any = model  # a model takes what its card says

    def forward(self, clips: Clips, targets: Tensor) -> Tensor:
        loss: Tensor = self.model.training_loss(clips, targets, F.cross_entropy)[0]
        return loss


def frozen(name: str, options: dict[str, Any]) -> Loss:
    """Return the same loss in every process: float64, training, batch norms in evaluation mode."""
    model = build(name, **options).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return Loss(model)


def train_half(rank: int, folder: str, cases: list[Any]) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    half = slice(2 * rank, 2 * rank + 2)
    gradients = {}
    for index, (name, options) in enumerate(cases):
        loss = frozen(name, options)
        # Every parameter must take part: DDP would wait for one that does not, and fail at the next step.
        parallel = DistributedDataParallel(loss, find_unused_parameters=False)
        clips = converted(inputs(name, count=4), dtype=torch.float64)
        part = clips[half] if isinstance(clips, Tensor) else (clips[0][half], clips[1][half])
        for _ in range(2):
            loss.zero_grad()
            parallel(part, torch.arange(4)[half]).backward()
        gradients[index] = {key: p.grad for key, p in loss.named_parameters() if p.grad is not None}
    if rank == 0:
        torch.save(gradients, Path(folder) / "gradients.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_are_one_with_the_joint_batch() -> None:
    cases = [
        ("tam_resnet18", {"temporal_stride": True}),
        ("stmulnet_r18", {}),
        ("two_stream_inception_v3", {"aux": True}),
        ("blvnet_tam_50", {}),
    ]
    with tempfile.TemporaryDirectory() as folder:
        spawn(train_half, args=(folder, cases), nprocs=2, join=True)
        shared = torch.load(Path(folder) / "gradients.pt", weights_only=True)
    for index, (name, options) in enumerate(cases):
        loss = frozen(name, options)
        loss(converted(inputs(name, count=4), dtype=torch.float64), torch.arange(4)).backward()
        for key, parameter in loss.named_parameters():
            assert parameter.grad is not None
            assert relative_gap(shared[index][key], parameter.grad) < 1e-10 or not parameter.grad.abs().max() > 1e-12, (
                key
            )

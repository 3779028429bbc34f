"""Changes to a batch at once: the pixels are those of one clip after another, up to rounding."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from data import AugmentSpec, ClipSpec
from data.clips import batched
from data.clips.augment import GEOMETRIC, OPERATIONS, Change, Operation, training_change
from data.clips.pixels import flow_clips, rgb_clips
from data.seeding import Draws
from data.stores.protocol import Box

CLIP = ClipSpec(frames=3, size=20)
SCALE = 255 * torch.tensor(CLIP.std).view(3, 1, 1, 1)


def _boxes(seed: int, changes: Sequence[Change]) -> list[Tensor]:
    """Return smooth pictures, of which no interpolation makes a step, one of them of a single colour."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for change in changes:
        coarse = torch.rand(CLIP.frames, 3, 4, 4, generator=generator) * 255
        size = (change.box.height, change.box.width)
        smooth = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")
        found.append(smooth.permute(0, 2, 3, 1).round().to(torch.uint8).contiguous())
    found[-1] = torch.full_like(found[-1], 77)
    return found


def _apart(changes: Sequence[Change], seed: int = 0) -> Tensor:
    """Return by how many byte values pixels differ when they are changed together: (N, 3, T, size, size)."""
    boxes = _boxes(seed, changes)
    one_by_one = rgb_clips(boxes, changes, CLIP)
    together = rgb_clips(boxes, changes, CLIP, ship=lambda numbers: numbers)
    return (one_by_one - together).abs() * SCALE


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**31), interpolation=st.sampled_from(["bilinear", "bicubic"]), most=st.sampled_from([1, 9**9])
)
def test_a_batch_changes_as_its_clips_do(seed: int, interpolation: Any, most: int) -> None:
    augment = AugmentSpec(
        flip=0.5,
        jitter=0.4,
        saturation=0.3,
        hue=0.3,
        erase=0.5,
        randaugment_n=1,
        randaugment_m=7,
        randaugment_noise=2.0,
        randaugment_interpolation=interpolation,
    )
    draws = [Draws("test", seed, number) for number in range(5)]
    changes = [training_change(30, 26, size=CLIP.size, augment=augment, draws=one) for one in draws]
    # Equalizing makes steps of what rounding has moved: alone it is compared below.
    changes = [
        dataclasses.replace(change, brightness=1.0, contrast=1.0, saturation=1.0, hue=0.0)
        if change.operations[0].name in ("equalize", "solarize", "posterize", "autocontrast")
        else change
        for change in changes
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batched, "MOST_VALUES", most)
        apart = _apart(changes, seed)
    # Bytes are cut off after each of up to five steps, so that the last digit of a float can move one by one value.
    assert float((apart > 6.5).float().mean()) < 0.001
    assert float((apart > 1.5).float().mean()) < 0.02


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_each_operation_is_the_one_of_a_single_clip(name: str, interpolation: Any) -> None:
    amounts = {"posterize": (6, 5, 8), "solarize": (200.0, 30.0, 255.0)}
    factors = (0.25, -0.3, 0.1) if name in GEOMETRIC else (0.3, 1.7, 1.2)
    if name == "rotate":
        factors = (20.0, -30.0, 3.0)
    changes = [
        Change(
            box=Box(top=0, left=0, height=24, width=22),
            flip=number == 0,
            operations=(Operation(name=name, amount=amount),) if number < 3 else (),
            interpolation=interpolation,
        )
        for number, amount in enumerate((*amounts.get(name, factors), 0.0))
    ]
    apart = _apart(changes)
    assert float(apart.max()) < 1.01
    assert float((apart > 0.01).float().mean()) < 0.01


def test_operations_that_are_drawn_twice_are_made_in_their_order() -> None:
    two = (Operation(name="brightness", amount=1.9), Operation(name="solarize", amount=128.0))
    box = Box(top=0, left=0, height=20, width=20)
    apart = _apart([Change(box=box, operations=order) for order in (two, two[::-1], two[:1], ())])
    assert float(apart.max()) < 0.01


class _Counted(TorchDispatchMode):
    """Counts what a GPU is asked to compute, and copies that wait for it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # of torch
        self.kernels = 0
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        name = str(func)
        tensors = [value for value in (*args, found) if isinstance(value, Tensor)]
        kinds = {value.device.type for value in tensors}
        is_copy = name.startswith(("aten._to_copy", "aten.copy_"))
        if (is_copy and kinds == {"cpu", "cuda"} and not kwargs.get("non_blocking")) or name.startswith(
            ("aten._local_scalar_dense", "aten.nonzero", "aten.is_nonzero")
        ):
            self.waits.append(name)
        if "cuda" in kinds and not func.is_view:
            self.kernels += 1
        return found


@pytest.mark.parametrize(
    ("augment", "most"), [({"randaugment_n": 2}, 500), ({"jitter": 0.4, "saturation": 0.4, "hue": 0.1}, 130)]
)
def test_a_batch_on_a_gpu_waits_for_nothing_and_takes_few_kernels(augment: dict[str, Any], most: int) -> None:
    spec = AugmentSpec(**augment)
    changes = [training_change(128, 170, size=112, augment=spec, draws=Draws("count", number)) for number in range(32)]
    clip = ClipSpec(frames=16, size=112)

    def run(changes: Sequence[Change]) -> _Counted:
        boxes = [
            torch.empty(16, change.box.height, change.box.width, 3, dtype=torch.uint8, device="cuda")
            for change in changes
        ]
        counted = _Counted()
        with counted:
            rgb_clips(boxes, changes, clip, ship=lambda numbers: numbers.to("cuda", non_blocking=True))
        return counted

    def kernels_of(changes: Sequence[Change]) -> int:
        counted = run(changes)
        assert counted.waits == []
        return counted.kernels

    with FakeTensorMode():
        batched.constant.cache_clear()
        run(changes)  # constants are sent once for a process, and not with each batch
        added = kernels_of(changes) - kernels_of([Change(box=change.box) for change in changes])
    batched.constant.cache_clear()
    assert 0 < added <= most


FLOW = ClipSpec(frames=3, size=20, modality="flow", flow_pairs=2)


def _fields(changes: Sequence[Change], counts: Sequence[int], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randint(256, (count, change.box.height, change.box.width, 2), generator=generator, dtype=torch.uint8)
        for count, change in zip(counts, changes, strict=True)
    ]


def _stacks(counts: Sequence[int], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(count, (FLOW.frames, FLOW.flow_pairs), generator=generator) for count in counts])


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    counts=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    operations=st.integers(0, 3),
    centring=st.sampled_from(["none", "mean"]),
    most=st.sampled_from([1, 9**9]),
)
def test_flow_changes_in_a_batch_as_its_clips_do(
    seed: int, counts: list[int], operations: int, centring: Any, most: int
) -> None:
    augment = AugmentSpec(flip=0.5, erase=0.3, randaugment_n=operations, randaugment_m=7, randaugment_noise=2.0)
    clip = FLOW.model_copy(update={"flow_centring": centring})
    draws = [Draws("flow", seed, number) for number in range(len(counts))]
    changes = [training_change(30, 26, size=clip.size, augment=augment, draws=one) for one in draws]
    boxes, stacks = _fields(changes, counts, seed), _stacks(counts, seed)
    one_by_one = flow_clips(boxes, stacks, changes, clip)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batched, "MOST_VALUES", most)
        together = flow_clips(boxes, stacks, changes, clip, ship=lambda numbers: numbers)
    if any(operation.name in GEOMETRIC for change in changes for operation in change.operations):
        torch.testing.assert_close(together, one_by_one, rtol=1e-3, atol=2e-3)  # places are rounded: 1 is 58 bytes
    else:
        assert torch.equal(together, one_by_one)


@pytest.mark.parametrize("name", sorted(GEOMETRIC))
def test_each_operation_turns_flow_as_that_of_a_single_clip(name: str) -> None:
    amounts = (20.0, -30.0, 3.0) if name == "rotate" else (0.25, -0.3, 0.1)
    changes = [
        Change(
            box=Box(top=0, left=0, height=24, width=22),
            flip=number == 0,
            operations=(Operation(name=name, amount=amount),) if number < 3 else (),
        )
        for number, amount in enumerate((*amounts, 0.0))
    ]
    counts = (3, 1, 5, 2)
    boxes, stacks = _fields(changes, counts), _stacks(counts)
    one_by_one = flow_clips(boxes, stacks, changes, FLOW)
    together = flow_clips(boxes, stacks, changes, FLOW, ship=lambda numbers: numbers)
    torch.testing.assert_close(together, one_by_one, rtol=1e-3, atol=2e-3)
    assert torch.equal(together[3], one_by_one[3])


def test_a_batch_of_flow_waits_for_nothing_and_takes_few_kernels() -> None:
    spec = AugmentSpec(randaugment_n=2)
    changes = [training_change(128, 170, size=112, augment=spec, draws=Draws("count", number)) for number in range(32)]
    clip = ClipSpec(frames=16, size=112, modality="flow", flow_pairs=5)

    def run(changes: Sequence[Change]) -> _Counted:
        counts = [20 + number % 3 for number in range(len(changes))]
        boxes = [
            torch.empty(count, change.box.height, change.box.width, 2, dtype=torch.uint8, device="cuda")
            for count, change in zip(counts, changes, strict=True)
        ]
        stacks = torch.zeros(len(changes), 16, 5, dtype=torch.int64, device="cuda")
        counted = _Counted()
        with counted:
            flow_clips(boxes, stacks, changes, clip, ship=lambda numbers: numbers.to("cuda", non_blocking=True))
        return counted

    with FakeTensorMode():
        changed, plain = run(changes), run([Change(box=change.box) for change in changes])
    assert changed.waits == plain.waits == []
    assert len(list(batched.parts(32, 10 * 16 * 112 * 112))) == 2
    assert 0 < changed.kernels - plain.kernels <= 220

"""An update in parts: its gradients are those of the whole batch."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data import ClipBatch
from hpo.spec import TrainingConfig
from workers.errors import DivergedError
from workers.training.precision import LossScale
from workers.training.recipe import make_optimizer
from workers.training.step import accumulate


class Net(nn.Module):
    """A network whose clips do not depend on each other: its norms have learned before."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm3d(6)
        self.head = nn.Linear(6, 5)

    def forward(self, clips: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.conv(clips)).relu().mean((2, 3, 4)))
        return logits


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 4, 6, 7, 100])
@pytest.mark.parametrize("mixed", [False, True])
def test_gradients_of_parts_add_up_to_those_of_a_plain_loop(micro_batch: int, mixed: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    model = Net().double().eval()
    clips = torch.randn(7, 3, 4, 6, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(5, (7,), generator=generator)
    shares = torch.rand(7, 5, generator=generator, dtype=torch.float64).softmax(1) if mixed else None
    batch = ClipBatch(clips=clips, labels=labels, ids=tuple("abcdefg"), mixed=shares)
    expected = torch.zeros((), dtype=torch.float64)
    for number in range(7):  # cross-entropy with smoothing, written out
        log = model(clips[number : number + 1])[0].log_softmax(0)
        target = F.one_hot(labels[number], 5).double() if shares is None else shares[number]
        expected = expected - ((0.9 * target + 0.1 / 5) * log).sum() / 7
    wanted = torch.autograd.grad(expected, list(model.parameters()))

    seen: list[int] = []

    def loss_of(part: ClipBatch) -> tuple[Tensor, Tensor]:
        seen.append(len(part.ids))
        assert isinstance(part.clips, Tensor)
        logits = model(part.clips)
        return F.cross_entropy(logits, part.targets, label_smoothing=0.1), logits

    loss, logits = accumulate(loss_of, batch, micro_batch=micro_batch)
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-14)
    assert torch.equal(logits.argmax(1), model(clips).argmax(1))
    for parameter, gradient in zip(model.parameters(), wanted, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-12, atol=1e-15)
    assert len(seen) == math.ceil(7 / micro_batch)
    assert (sum(seen), max(seen) <= micro_batch) == (7, True)
    assert max(seen) - min(seen) <= 1


def test_parts_of_a_batch_are_its_clips_in_order() -> None:
    pair = (torch.arange(10.0)[:, None], -torch.arange(10.0)[:, None])
    batch = ClipBatch(clips=pair, labels=torch.arange(5), ids=tuple("abcde"), views=2, mixed=torch.eye(5))
    parts = list(batch.parts(3))
    assert [part.ids for part in parts] == [("a", "b"), ("c", "d", "e")]
    for part, videos in zip(parts, (slice(0, 2), slice(2, 5)), strict=True):
        of_clips = slice(2 * videos.start, 2 * videos.stop)
        assert all(torch.equal(ours, whole[of_clips]) for ours, whole in zip(part.clips, pair, strict=True))
        assert torch.equal(part.targets, torch.eye(5)[videos])
        assert torch.equal(part.labels, torch.arange(5)[videos])
        assert part.views == 2
    assert list(batch.parts(5)) == [batch]


LEFT_OUT = [0, 5, 6]


@pytest.mark.parametrize("interval", [3, 2000])
@pytest.mark.parametrize("fused", [False, True])
def test_the_scale_of_the_loss_moves_and_leaves_out_updates_as_pytorchs_scaler_does(
    monkeypatch: pytest.MonkeyPatch, interval: int, fused: bool
) -> None:
    """With a factor of each update's loss: some of them overflow, the first one too."""
    monkeypatch.setattr(LossScale, "GROWTH_INTERVAL", interval)
    ours, theirs = (nn.Parameter(torch.tensor([3.0, -1.0])) for _ in range(2))
    config = TrainingConfig(model="resnet18", momentum=0.9, lr=0.1)
    groups = [{"params": [ours], "lr": 0.1, "weight_decay": 0.01}]
    optimizer = make_optimizer(groups, config) if fused else torch.optim.SGD(groups, momentum=0.9)
    reference = torch.optim.SGD([theirs], lr=0.1, momentum=0.9, weight_decay=0.01)
    scaler, scale = torch.amp.GradScaler("cpu", growth_interval=interval), LossScale()
    moved = []
    for number in range(14):
        factor = math.inf if number in LEFT_OUT else 0.5 + number
        for weights, scaled in ((ours, partial(torch.mul, scale.value)), (theirs, scaler.scale)):
            weights.grad = None
            scaled((weights.square() * factor).sum()).backward()
        length = scale.unscale([ours])
        if math.isfinite(factor):
            assert ours.grad is not None
            assert float(length) == pytest.approx(float(ours.grad.norm()))
        moved.append(scale.take())
        if moved[-1]:
            optimizer.step()
        scaler.step(reference)
        scaler.update()
        assert scale.value == scaler.get_scale()
        torch.testing.assert_close(ours, theirs)
        kept = LossScale()
        kept.load(scale.state())
        assert kept.state() == scale.state()
        scale = kept
    assert [number for number, has in enumerate(moved) if not has] == LEFT_OUT
    assert scale.left_out == len(LEFT_OUT)


def test_gradients_that_are_never_finite_are_a_divergence() -> None:
    scale, weights = LossScale(), nn.Parameter(torch.ones(1))
    weights.grad = torch.tensor([math.nan])

    def leave_out() -> None:
        for _ in range(100):
            scale.unscale([weights])
            assert not scale.take()

    with pytest.raises(DivergedError, match=r"27 updates were left out\); a lower learning rate .* precision: fp32"):
        leave_out()

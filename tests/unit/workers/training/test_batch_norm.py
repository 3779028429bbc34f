"""Batch-norm statistics equal those of a plain loop in float64, and nothing else is changed by computing them."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data import ClipBatch
from workers.training.batch_norm import has_statistics, reestimated

CPU = torch.device("cpu")


class Network(nn.Module):
    """Two batch norms in a row, one that is frozen, one that no clip reaches, and dropout between."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(3, 4, 1)
        self.bn1 = nn.BatchNorm3d(4, eps=1e-3, momentum=0.001)
        self.drop = nn.Dropout(0.5)
        self.second = nn.Conv3d(4, 5, 1)
        self.bn2 = nn.BatchNorm3d(5)
        self.frozen = nn.BatchNorm3d(5)
        self.unused = nn.BatchNorm3d(5)
        self.plain = nn.BatchNorm3d(5, track_running_stats=False)

    def train(self, mode: bool = True) -> Network:
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, clips: Tensor) -> Tensor:
        x = self.drop(torch.relu(self.bn1(self.first(clips))))
        y: Tensor = self.plain(self.frozen(self.bn2(self.second(x))))
        return y


@pytest.fixture
def network() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = Network()
        for layer in (made.bn1, made.bn2, made.frozen, made.unused):
            layer.running_mean = torch.randn(layer.num_features)
            layer.running_var = torch.rand(layer.num_features)
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
    return made.train()


def _batches(sizes: Sequence[int] = (4, 4, 3)) -> list[ClipBatch]:
    draws = torch.Generator().manual_seed(5)
    found = []
    for place, size in enumerate(sizes):
        # Each batch has its own mean and spread, so that a mean of the batches' variances would be far too small.
        clips = (3 * place + 1) * torch.randn(size, 3, 2, 4, 4, generator=draws) + 5 * place - 200
        found.append(ClipBatch(clips=clips, labels=torch.zeros(size, dtype=torch.int64), ids=("",) * size))
    return found


def _expected(network: Network) -> dict[str, Tensor]:
    """Return the mean and the unbiased variance of everything that both layers see, batch by batch, in float64."""
    model = copy.deepcopy(network).double()
    seen: dict[str, list[Tensor]] = {"bn1": [], "bn2": []}
    for batch in _batches():
        assert isinstance(batch.clips, Tensor)
        x = F.conv3d(batch.clips.double(), model.first.weight, model.first.bias)
        seen["bn1"].append(x)
        x = F.batch_norm(x, None, None, model.bn1.weight, model.bn1.bias, training=True, eps=1e-3).relu()
        seen["bn2"].append(F.conv3d(x, model.second.weight, model.second.bias))
    found: dict[str, Tensor] = {}
    for name, values in seen.items():
        flat = torch.cat([value.transpose(0, 1).flatten(1) for value in values], dim=1).detach()
        found[f"{name}.running_mean"] = flat.mean(1)
        found[f"{name}.running_var"] = flat.var(1, correction=1)
    return found


def test_the_statistics_are_those_of_all_values_over_all_batches(network: Network) -> None:
    found = reestimated(network, _batches(), device=CPU, precision="fp32")
    expected = _expected(network)
    assert set(found) == set(expected), "the frozen and the unused layer keep theirs"
    for name, value in found.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-5)


def test_the_model_stays_as_it_was(network: Network) -> None:
    before = copy.deepcopy(network.state_dict())
    modes = [module.training for module in network.modules()]
    random = torch.get_rng_state()
    reestimated(network, _batches(), device=CPU, precision="fp32")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [module.training for module in network.modules()] == modes
    assert (network.bn1.momentum, network.bn2.momentum) == (0.001, 0.1)
    assert not any(module._forward_hooks for module in network.modules())
    assert torch.equal(torch.get_rng_state(), random), "dropout is off"


def test_an_error_in_the_middle_leaves_the_model_as_it_was(network: Network) -> None:
    before = copy.deepcopy(network.state_dict())
    wrong = ClipBatch(clips=torch.zeros(2, 7, 2, 4, 4), labels=torch.zeros(2, dtype=torch.int64), ids=("", ""))
    with pytest.raises(RuntimeError):
        reestimated(network, [*_batches(), wrong], device=CPU, precision="fp32")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    assert network.bn1.momentum == 0.001
    assert not any(module._forward_hooks for module in network.modules())


def test_a_model_without_moving_statistics_is_recognised(network: Network) -> None:
    assert has_statistics(network)
    assert not has_statistics(network.eval())
    assert not has_statistics(nn.Sequential(nn.LayerNorm(3), nn.BatchNorm3d(3, track_running_stats=False)))

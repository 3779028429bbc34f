"""RAFT with a person's weights: the network they belong to, run as its authors do, on a GPU only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models.optical_flow import raft_small

from data.errors import FlowError
from data.flow.compute import flow_method
from data.flow.raft import load_raft, on_device, raft_method
from tests.unit.data.encoded import moving


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("raft") / "small.pt"
    torch.save(raft_small(weights=None).state_dict(), path)
    return path


def test_fields_are_those_of_the_network(weights: Path) -> None:
    frames = moving(2, 130, 141)
    network = load_raft(weights)
    field = on_device(network, torch.device("cpu"))(frames[0], frames[1])
    assert field.shape == (130, 141, 2)
    assert field.dtype == np.float32
    padded = np.pad(frames, ((0, 0), (0, 6), (0, 3), (0, 0)), mode="edge")
    images = torch.from_numpy(padded).permute(0, 3, 1, 2) / 255 * 2 - 1
    with torch.inference_mode():
        wanted = network(images[:1], images[1:])[-1][0, :, :130, :141].permute(1, 2, 0)
    np.testing.assert_allclose(field, wanted.numpy(), atol=1e-3)


def test_a_file_that_is_not_weights_of_raft_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("weights")
    torch.save({"layer": torch.zeros(3)}, tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(FlowError, match="cannot be read as weights"):
        load_raft(tmp_path / "text.pt")
    with pytest.raises(FlowError, match="cannot be read as weights"):
        load_raft(tmp_path / "gone.pt")
    for name in ("other.pt", "list.pt"):
        with pytest.raises(FlowError, match="the weights of another network"):
            load_raft(tmp_path / name)


def test_raft_without_weights_or_a_gpu_says_what_to_do(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(FlowError, match="raft needs the path of torchvision's weights"):
        flow_method("raft")
    with pytest.raises(FlowError, match=r"raft needs a GPU .*choose dis"):
        raft_method(weights)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_agrees_with_the_cpu(weights: Path) -> None:
    first, second = moving(2, 128, 160)
    on_cpu = on_device(load_raft(weights), torch.device("cpu"))(first, second)
    np.testing.assert_allclose(raft_method(weights)(first, second), on_cpu, atol=0.1)

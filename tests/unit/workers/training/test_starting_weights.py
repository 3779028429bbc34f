"""A training starts from the file that its configuration names, and from no other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from data import Dataset
from hpo.spec import TrainingConfig
from models import VideoModel, WeightsError, WeightsUnavailableError
from models.weights.digest import sha256_of
from workers.training.model import build_model
from workers.training.reproducibility import Runtime, seed_everything
from workers.training.starting_weights import WeightsFolders, load_starting_weights
from workers.training.trainer import Trainer

from ..tiny import tiny_config

PAIR = {"model": "two_stream_resnet18", "model.width": 4, "clip.size": 32}


def made(config: TrainingConfig, *, classes: int = 2, seed: int = 7) -> VideoModel:
    """Return a model whose parameters are drawn with `seed`."""
    seed_everything(seed)
    return build_model(config, num_classes=classes)


def saved(model: torch.nn.Module, path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    torch.save(model.state_dict(), path)
    return path


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_trainer_starts_from_the_file(tmp_path: Path, dataset: Dataset, runtime: Runtime) -> None:
    theirs = made(tiny_config())
    path = saved(theirs, tmp_path / "start.pth")
    folders = WeightsFolders(roots=(tmp_path,))
    config = tiny_config(weights="start.pth")
    trainer = Trainer(config, epochs=1, dataset=dataset, runtime=runtime, weights=folders)
    assert same(trainer.model.state_dict(), theirs.state_dict())
    assert trainer.identity.weights == {"start.pth": sha256_of(path)}
    from_scratch = Trainer(tiny_config(), epochs=1, dataset=dataset, runtime=runtime, weights=folders)
    assert not same(from_scratch.model.state_dict(), theirs.state_dict())
    assert "weights" not in from_scratch.state()


def test_a_run_does_not_continue_with_other_weights(tmp_path: Path, dataset: Dataset, runtime: Runtime) -> None:
    folders = WeightsFolders(roots=(tmp_path,))
    states = []
    for seed in (1, 2):
        saved(made(tiny_config(), seed=seed), tmp_path / "start.pth")
        config = tiny_config(weights="start.pth")
        trainer = Trainer(config, epochs=1, dataset=dataset, runtime=runtime, weights=folders)
        states.append((trainer.identity, trainer.state()))
    (_, first), (identity, second) = states
    assert identity.problem_with(second) is None
    assert identity.problem_with(first) == "it was made from other weights"


def test_other_classes_leave_the_classifier_as_the_seed_draws_it(tmp_path: Path) -> None:
    saved(made(tiny_config(), classes=5), tmp_path / "five.pth")
    model, fresh = made(tiny_config(), seed=3), made(tiny_config(), seed=3)
    (loaded,) = load_starting_weights(model, tiny_config(weights="five.pth"), WeightsFolders(roots=(tmp_path,)))
    assert loaded.report.reset == ("head.bias", "head.weight")
    assert torch.equal(model.get_classifier().weight, fresh.get_classifier().weight)


def test_each_stream_has_a_file_of_its_own(tmp_path: Path) -> None:
    config = TrainingConfig.from_flat({**PAIR, "weights.rgb": "rgb.pth", "weights.flow": "flow.pth"})
    theirs = made(config)
    saved(theirs.get_submodule("rgb"), tmp_path / "rgb.pth")
    saved(theirs.get_submodule("flow"), tmp_path / "flow.pth")
    model = made(config, seed=8)
    loaded = load_starting_weights(model, config, WeightsFolders(roots=(tmp_path,)))
    assert [(one.stream, one.source) for one in loaded] == [("rgb", "rgb.pth"), ("flow", "flow.pth")]
    assert same(model.state_dict(), theirs.state_dict())


def test_a_model_of_one_stream_has_no_weights_of_streams(tmp_path: Path) -> None:
    config = tiny_config(**{"weights.flow": "flow.pth"})
    with pytest.raises(WeightsError, match=r"slowfast_r18 has one stream: .* not `weights.flow`"):
        load_starting_weights(made(config), config, WeightsFolders(roots=(tmp_path,)))


def test_a_file_of_other_bytes_than_expected_is_refused(tmp_path: Path) -> None:
    config = tiny_config(weights="start.pth")
    path = saved(made(config), tmp_path / "start.pth")
    expected = "0" * 64
    with pytest.raises(WeightsUnavailableError, match=rf"SHA-256 {sha256_of(path)}.*{expected}"):
        load_starting_weights(made(config), config, WeightsFolders(roots=(tmp_path,), expected={"start.pth": expected}))


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(weights="start.pth")
    path = saved(made(config), tmp_path / "start.pth")

    def digest_then_touch(found: Path) -> str:
        digest = sha256_of(found)
        os.utime(path, ns=(1, 1))
        return digest

    monkeypatch.setattr("workers.training.starting_weights.sha256_of", digest_then_touch)
    with pytest.raises(WeightsUnavailableError, match="was changed while it was read"):
        load_starting_weights(made(config), config, WeightsFolders(roots=(tmp_path,)))

"""Weights from a file: taken whole, refused in one sentence, never executed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import models

NAME = "slowfast_r18"


def make(num_classes: int = 4, **options: Any) -> models.VideoModel:
    return models.create_model(NAME, num_classes=num_classes, width=8, **options)


@pytest.fixture
def source() -> models.VideoModel:
    model = make()
    model(torch.randn(2, 3, 8, 32, 32))  # Moves the running statistics.
    return model


@pytest.fixture
def path(source: models.VideoModel, tmp_path: Path) -> Path:
    file = tmp_path / "weights.pt"
    torch.save(source.state_dict(), file)
    return file


def edit(path: Path, **changes: Tensor | None) -> None:
    state = torch.load(path, weights_only=True)
    for key, value in changes.items():
        name = key.replace("__", ".")
        if value is None:
            del state[name]
        else:
            state[name] = value
    torch.save(state, path)


@pytest.mark.parametrize("kind", [str, Path])
def test_every_tensor_is_taken(source: models.VideoModel, path: Path, kind: type[str] | type[Path]) -> None:
    model = make(weights=kind(path))
    for key, tensor in source.state_dict().items():
        assert torch.equal(model.state_dict()[key], tensor), key


def test_a_created_model_says_what_was_loaded(source: models.VideoModel, path: Path, tmp_path: Path) -> None:
    report = make(5, weights=path).weights_reports[None]
    assert set(report.reset) == {"head.weight", "head.bias"}
    assert set(report.loaded) | set(report.reset) == set(source.state_dict())
    assert make().weights_reports == {}
    pair = models.create_model("two_stream_resnet18", num_classes=2, width=4)
    torch.save(pair.get_submodule("flow").state_dict(), tmp_path / "flow.pt")
    loaded = models.create_model("two_stream_resnet18", num_classes=2, width=4, weights={"flow": tmp_path / "flow.pt"})
    assert list(loaded.weights_reports) == ["flow"]


@pytest.mark.parametrize("classes", [1, 3, 7])
def test_other_classes_reset_the_classifier_and_keep_the_body(
    source: models.VideoModel, path: Path, classes: int
) -> None:
    model = make(classes)
    own_head = model.get_classifier().weight.clone()
    report = models.load_weights(model, path)
    assert report.reset == ("head.bias", "head.weight")
    for key, tensor in source.state_dict().items():
        if not key.startswith("head."):
            assert torch.equal(model.state_dict()[key], tensor), key
            assert key in report.loaded
    assert torch.equal(model.get_classifier().weight, own_head)
    assert model(torch.randn(2, 3, 8, 32, 32)).shape == (2, classes)


def test_other_classes_with_another_kind_of_head(path: Path) -> None:
    model = make(7, head_bias=False)
    assert set(models.load_weights(model, path).reset) == {"head.weight"}
    assert model.get_classifier().bias is None


def test_misfits_are_named_in_one_error_and_nothing_is_loaded(source: models.VideoModel, path: Path) -> None:
    edit(
        path,
        slow__stem__conv__weight=None,
        extra__weight=torch.zeros(2),
        fast__stem__norm__bias=torch.zeros(3),
    )
    model = make()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(models.WeightsError) as caught:
        models.load_weights(model, path)
    message = str(caught.value)
    assert message.endswith(
        "does not fit slowfast_r18: missing slow.stem.conv.weight; unexpected extra.weight; "
        "of another shape fast.stem.norm.bias is (3,) and must be (1,)"
    )
    assert all(torch.equal(model.state_dict()[key], before[key]) for key in before)


def test_a_long_list_of_misfits_is_cut_short(tmp_path: Path) -> None:
    file = tmp_path / "other.pt"
    torch.save(models.create_model("r3d_18", num_classes=4, width=8).state_dict(), file)
    with pytest.raises(models.WeightsError, match=r"missing .* and \d+ more; unexpected .* more$"):
        make(weights=file)


def test_a_head_of_other_features_is_a_misfit_not_a_reset(path: Path) -> None:
    edit(path, head__weight=torch.zeros(9, 5))
    with pytest.raises(models.WeightsError, match=re.escape("head.weight is (9, 5)")):
        make(weights=path)


def test_a_missing_bias_of_the_same_classes_is_a_misfit(path: Path) -> None:
    edit(path, head__bias=None)
    with pytest.raises(models.WeightsError, match=r"missing head\.bias$"):
        make(weights=path)


@pytest.mark.parametrize("content", [b"", b"not weights", b"\x80\x02N"], ids=["empty", "text", "pickle"])
def test_an_unreadable_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "broken.pt"
    file.write_bytes(content)
    with pytest.raises(models.WeightsError, match=r"broken\.pt cannot be read"):
        make(weights=file)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_cut_short_is_one_sentence(
    source: models.VideoModel, tmp_path: Path, share: float, zipped: bool
) -> None:
    file = tmp_path / "cut.pt"
    torch.save(source.state_dict(), file, _use_new_zipfile_serialization=zipped)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(models.WeightsError, match=r"cut\.pt cannot be read"):
        make(weights=file)


def test_an_absent_file_and_a_folder_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(models.WeightsError, match="does not exist"):
        make(weights=tmp_path / "absent.pt")
    with pytest.raises(models.WeightsError, match="cannot be read"):
        make(weights=tmp_path)


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("exploded"),))


def test_code_in_a_file_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"head.weight": Bomb()}, tmp_path / "bomb.pt")
    with pytest.raises(models.WeightsError, match="cannot be read"):
        make(weights=tmp_path / "bomb.pt")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"epoch": 3}], ids=["list", "no tensors"])
def test_other_contents_are_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "list.pt")
    with pytest.raises(models.WeightsError, match="does not contain a state dict"):
        make(weights=tmp_path / "list.pt")


def save_of_lightning(path: Path, state: dict[str, Tensor], **beside: Tensor) -> None:
    """Save as Lightning saves a module with a network `model`, and with other things beside it."""
    named = {f"model.{name}": tensor for name, tensor in state.items()}
    others = {name.replace("__", "."): tensor for name, tensor in beside.items()}
    torch.save({"epoch": 3, "pytorch-lightning_version": "2.4.0", "state_dict": named | others}, path)


def test_what_a_module_of_lightning_has_beside_its_network_is_left_out_and_reported(
    source: models.VideoModel, path: Path
) -> None:
    save_of_lightning(path, source.state_dict(), criterion__weight=torch.ones(4), val_acc__tp=torch.tensor(torch.nan))
    model = make(weights=path)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in source.state_dict().items())
    assert model.weights_reports[None].dropped == ("criterion.weight", "val_acc.tp")
    assert models.identify_weights(path).left_over == ("criterion.weight", "val_acc.tp")


def test_a_classifier_beside_the_network_of_lightning_is_missed(source: models.VideoModel, path: Path) -> None:
    body = {name: tensor for name, tensor in source.state_dict().items() if not name.startswith("head.")}
    save_of_lightning(path, body, fc__weight=torch.zeros(4, 10))
    with pytest.raises(models.WeightsError, match=r"missing head\.bias, head\.weight; left aside, .* fc\.weight$"):
        make(weights=path)
    save_of_lightning(path, source.state_dict(), fc__weight=torch.zeros(4, 10))
    with pytest.raises(models.WeightsError, match=r"its classifier fc\.weight has the same 4 classes"):
        make(weights=path)

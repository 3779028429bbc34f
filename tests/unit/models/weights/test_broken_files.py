"""Files that are not weights, or not whole: one sentence each, from identifying and from loading."""

from __future__ import annotations

import argparse
import errno
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from safetensors.torch import save_file

import models


def saved(content: object, *, old: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not old)
    return buffer.getvalue()


def small() -> models.VideoModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return models.create_model("resnet18", num_classes=3, width=8)


def archive(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name.replace("__", "."), content)
    return buffer.getvalue()


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("exploded"),))


def scripted() -> bytes:
    return archive(
        **{"net/code/net__py": b"def forward(self, x): ...", "net/data__pkl": b"", "net/constants__pkl": b""}
    )


def numpy_archive() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, kernel=np.zeros(3))
    return buffer.getvalue()


def matconvnet(value: object) -> bytes:
    """Return a MatConvNet file of one convolution with this filter; without one, of no layer."""
    layers = {"name": "first", "type": "dagnn.Conv", "params": "filter"}
    network = {"params": {"name": "filter", "value": value}, "layers": layers}
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"params": [], "layers": []} if value is None else network)
    return buffer.getvalue()


def cut_mmaction() -> bytes:
    """Return a file of MMAction2's SlowFast that lacks the stem of the fast path."""
    names = ("backbone.slow_path.conv1.conv.weight", "backbone.fast_path.layer1.0.conv1.conv.weight")
    return saved({name: torch.zeros(2, 2, 1, 1, 1) for name in (*names, "cls_head.fc_cls.weight")})


def twice() -> bytes:
    """Return a file of MIT's programs in which a shift does and does not wrap the same convolution."""
    names = ("layer1.0.conv1.weight", "layer1.0.conv1.net.weight", "conv1.weight")
    return saved({f"base_model.{name}": torch.zeros(2, 2, 1, 1) for name in names})


BROKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty.pth": (lambda: b"", "it is empty: copy or download it again"),
    "text.pth": (lambda: b"epoch 3: loss 0.5\n", "it is a text: name the file of the weights themselves"),
    "umlauts.yaml": (lambda: "größe: 1\n".encode() * 60, "it is a text"),
    "page.pth": (lambda: b"<!DOCTYPE html><title>404</title>", "a web page, as a failed download leaves"),
    "pointer.pth": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "run git lfs pull"),
    "truncated.pth": (lambda: saved(small().state_dict())[:5000], "it is cut short or damaged"),
    "truncated_old.pth": (
        lambda: saved(small().state_dict(), old=True)[:5000],
        "probably because it is cut short or damaged",
    ),
    "code.pth": (lambda: saved({"fc.weight": Bomb()}), "which could run code"),
    "code.pkl": (lambda: pickle.dumps({"blobs": Bomb()}), "could run code"),
    "script.pt": (scripted, "a program of TorchScript, which is not run here"),
    "keras.h5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(64), "it is HDF5, of Keras or MATLAB 7.3"),
    "model.keras": (lambda: archive(config__json=b"{}", model__weights__h5=b""), "a model of Keras"),
    "flax.npz": (numpy_archive, "an archive of NumPy"),
    "graph.onnx": (lambda: b"\x08\x07\x12\x07pytorch" + bytes(range(200)), "a graph of ONNX"),
    "model.safetensors.index.json": (
        lambda: (
            b'{\n "metadata": {"total_size": 8},\n "weight_map": {"fc.weight": "model-00001-of-00002.safetensors"}\n}'
        ),
        "it is the index of a model in several files",
    ),
    "packed.pth.gz": (lambda: b"\x1f\x8b\x08" + bytes(9), "unpack it"),
    "noise.bin": (lambda: bytes(range(200, 256)) * 4, "it is not a file of PyTorch, safetensors"),
    "number.pth": (lambda: saved({"epoch": 3}), "maps names to tensors, but other things as well, such as 'epoch'"),
    "list.pth": (lambda: saved([torch.zeros(1)]), "but an object of the type list: save one"),
    "tensor.pth": (lambda: saved(torch.zeros(1)), "but one tensor: save one"),
    "nothing.pth": (lambda: saved({"state_dict": {}}), "but nothing: save one"),
    "list.pkl": (lambda: pickle.dumps([1]), "but an object of the type list"),
    "cut.safetensors": (lambda: (80).to_bytes(8, "little") + b'{"fc.weight":', "probably because it is cut short"),
    "nan.pth": (lambda: saved({"fc.weight": torch.tensor([0.0, float("nan")])}), "fc.weight holds NaN or infinity"),
    "infinite.pth": (lambda: saved({"fc.weight": torch.tensor([1e300], dtype=torch.float64)}), "more than float32"),
    "variance.pth": (lambda: saved({"bn1.running_var": torch.tensor([1.0, -1.0])}), "holds negative variances"),
    "module.pth": (lambda: saved(torch.nn.Linear(2, 2)), r"which could run code; save one with torch\.save\(model\.st"),
    "complex.pth": (lambda: saved({"fc.weight": torch.ones(2, dtype=torch.complex64)}), r"plain numbers \(complex64"),
    "meta.pth": (lambda: saved({"fc.weight": torch.ones(2, device="meta")}), r"plain numbers \(float32 on meta"),
    "cut_mmaction.pth": (cut_mmaction, "has names of MMAction2, but lacks the tensor backbone.fast"),
    "twice.pth": (twice, "base_model.layer1.0.conv1.weight and base_model.layer1.0.conv1.net.weight are one tensor"),
    "nan.mat": (lambda: matconvnet(np.full((3, 3, 3, 4), np.nan)), "its tensor first holds NaN"),
    "words.mat": (lambda: matconvnet("words"), "its layer first holds <U5, not numbers"),
    "nothing.mat": (lambda: matconvnet(None), "does not contain a MatConvNet DagNN with parameters"),
    "matlab.pth": (lambda: b"MATLAB 5.0 MAT-file" + bytes(120), r"its name must end in \.mat"),
    "torch.mat": (lambda: saved({"fc.weight": torch.zeros(2)}), "it is not a file of MATLAB"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_sentence(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content, sentence = BROKEN[name]
    (tmp_path / name).write_bytes(content())
    model = small()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    for use in (lambda: models.load_weights(model, tmp_path / name), lambda: models.identify_weights(tmp_path / name)):
        with pytest.raises(models.WeightsError, match=sentence) as caught:
            use()
        message = str(caught.value)
        assert message.startswith(str(tmp_path / name))
        assert "\n" not in message
        assert len(message) < 400
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert not (tmp_path / "exploded").exists()


def test_a_folder_and_a_missing_file_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(models.WeightsError, match="cannot be read: it is a folder"):
        models.identify_weights(tmp_path)
    with pytest.raises(models.WeightsError, match=r"none\.pth does not exist"):
        models.identify_weights(tmp_path / "none.pth")


@pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch warns of sparse tensors in any file
def test_sparse_tensors_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(saved({"fc.weight": torch.eye(2).to_sparse()}))
    with pytest.raises(models.WeightsError, match=r"fc\.weight is not of plain numbers \(float32 on cpu, sparse_coo"):
        models.identify_weights(tmp_path / "a.pth")


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(models.WeightsError, match="it is a pipe or a device"):
        models.identify_weights(tmp_path / "pipe.pth")


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.bool, torch.int64], ids=str)
def test_integers_are_not_taken_for_weights(kind: torch.dtype, tmp_path: Path) -> None:
    model = small()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    codes = {name: (tensor * 100).to(kind) for name, tensor in before.items()}
    (tmp_path / "a.pth").write_bytes(saved(codes))
    assert models.identify_weights(tmp_path / "a.pth").fits == ()
    with pytest.raises(models.WeightsError, match=r"does not fit resnet18: of u?(int|bool).*, not of real numbers"):
        models.load_weights(model, tmp_path / "a.pth")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_floating_numbers_are_converted(kind: torch.dtype, tmp_path: Path) -> None:
    model, source = small(), {name: tensor.to(kind) for name, tensor in small().state_dict().items()}
    (tmp_path / "a.pth").write_bytes(saved(source))
    models.load_weights(model, tmp_path / "a.pth")
    assert all(torch.equal(tensor, source[name].to(tensor.dtype)) for name, tensor in model.state_dict().items())


def test_a_classifier_of_as_many_classes_whose_bias_differs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(saved({**small().state_dict(), "fc.bias": torch.zeros(7)}))
    with pytest.raises(models.WeightsError, match=r"of another shape fc\.bias is \(7,\) and must be \(3,\)"):
        models.load_weights(small(), tmp_path / "a.pth")


def test_a_file_that_may_not_be_read_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(saved(small().state_dict()))

    def closed(*_: object) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", closed)  # whoever runs the tests may read everything
    with pytest.raises(models.WeightsError, match=r"a\.pth cannot be read: Permission denied; let this user read it"):
        models.identify_weights(path)


def test_other_classes_with_another_body_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(saved(models.create_model("resnet18", num_classes=7, width=16).state_dict()))
    with pytest.raises(models.WeightsError, match="does not fit resnet18"):
        models.load_weights(small(), tmp_path / "a.pth")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"module": state, "optimizer": {"state": {}}},
        lambda state: {"model": state, "args": argparse.Namespace(lr=0.1, data="ucf101")},
        lambda state: {"model_state": state, "cfg": "TRAIN: {}"},
        lambda state: {"model_ema": state, "epoch": 3},
        lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {f"_orig_mod.module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"model": state, "best": np.float64(0.5), "scores": np.arange(3.0)},
        lambda state: {"model": state, "folder": Path("runs")},
        lambda state: {"n_averaged": torch.tensor(3), **{f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {"net": {f"ema_model.{name}": tensor for name, tensor in state.items()}, "acc": 70.5},
    ],
    ids=["module", "Namespace", "model_state", "ema", "data parallel", "compiled", "NumPy", "path", "averaged", "net"],
)
@pytest.mark.parametrize("old", [False, True], ids=["zip", "old"])
def test_wrappers_of_trainers_are_opened(wrap: Callable[[Any], Any], old: bool, tmp_path: Path) -> None:
    source = small()
    (tmp_path / "a.pth").write_bytes(saved(wrap(source.state_dict()), old=old))
    target = models.create_model("resnet18", num_classes=3, width=8, weights=tmp_path / "a.pth")
    assert all(torch.equal(tensor, source.state_dict()[key]) for key, tensor in target.state_dict().items())


def test_a_moving_average_is_not_taken_instead_of_the_weights(tmp_path: Path) -> None:
    source = small().state_dict()
    (tmp_path / "a.pth").write_bytes(
        saved({"model_ema": {name: torch.zeros_like(value) for name, value in source.items()}, "model": source})
    )
    target = models.create_model("resnet18", num_classes=3, width=8, weights=tmp_path / "a.pth")
    assert torch.equal(target.state_dict()["conv1.weight"], source["conv1.weight"])


def test_safetensors_are_read(tmp_path: Path) -> None:
    source = small()
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    target = models.create_model("resnet18", num_classes=3, width=8, weights=tmp_path / "model.safetensors")
    assert all(torch.equal(tensor, source.state_dict()[key]) for key, tensor in target.state_dict().items())


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("backbone.bottom_up.stem.conv1.weight", "Detectron2"),
        ("vision_model.embeddings.class_embedding", "transformers"),
        ("blocks1.0.attn.weight", "UniFormer"),
        ("cls_head.fc_cls.weight", "MMAction2"),
    ],
)
def test_a_file_of_a_program_that_is_not_read_names_what_reads_it(name: str, program: str, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(saved({name: torch.zeros(2, 2)}))
    identity = models.identify_weights(tmp_path / "a.pth")
    assert identity.fits == ()
    (note,) = identity.notes
    assert note.startswith("this looks like ")
    assert program in note.partition(";")[2]
    with pytest.raises(models.WeightsError, match=rf"a\.pth does not fit resnet18: this looks like .*{program}"):
        models.load_weights(small(), tmp_path / "a.pth")

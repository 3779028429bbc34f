"""Weights of other programs: each format is written here as that program writes it, and read by ours."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torch import Tensor, nn
from torchvision import models as torchvision_models

import models
from models.architectures.stmulnet import StMulNet

from ..architectures.test_x3d import their_name
from ..oracles import Undrawn, pytorchvideo, random_clip, randomise, relative_gap


def make(name: str, *, seed: int = 0, **options: Any) -> models.VideoModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = models.create_model(name, **{"num_classes": 4, "width": 8, **options})
    if "weights" not in options:
        randomise(model, seed)
    return model


def undrawn(name: str, **options: Any) -> models.VideoModel:
    """Return a model of full width, most of whose weights are zeros: it is to be filled."""
    with Undrawn():
        return models.create_model(name, **options)


def assert_same_state(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(ours[name], theirs[name]), name


# ---- names of PySlowFast


def slowfast_name(name: str) -> str:
    """Return PySlowFast's name of a tensor of our SlowFast or single-path networks."""
    path = {"slow": 0, "path": 0, "fast": 1}.get(name.split(".", maxsplit=1)[0])
    if name.startswith("head."):
        return name.replace("head.", "head.projection.")
    if match := re.match(r"laterals\.(\d)\.(conv|norm)\.(.*)", name):
        return f"s{int(match[1]) + 1}_fuse.{ {'conv': 'conv_f2s', 'norm': 'bn'}[match[2]] }.{match[3]}"
    if match := re.match(r"\w+\.stem\.(conv|norm)\.(.*)", name):
        return f"s1.pathway{path}_stem.{ {'conv': 'conv', 'norm': 'bn'}[match[1]] }.{match[2]}"
    match = re.match(r"\w+\.stages\.(\d)\.(\d+)\.(branch|shortcut)\.(\w+)\.(.*)", name)
    assert match is not None, name
    stage, block, part, layer, rest = match.groups()
    prefix = f"s{int(stage) + 2}.pathway{path}_res{block}."
    if part == "shortcut":
        return prefix + {"0": "branch1.", "1": "branch1_bn."}[layer] + rest
    kind, letter = layer.split("_")
    return prefix + "branch2." + letter + ("_bn" if kind == "norm" else "") + "." + rest


@pytest.mark.parametrize("name", ["slowfast_r18", "slowfast_r50_8x8", "slow_r50", "i3d_r50"])
def test_pyslowfast_checkpoint(name: str, tmp_path: Path) -> None:
    source, target = make(name, seed=1), make(name)
    state = {slowfast_name(key): tensor for key, tensor in source.state_dict().items()}
    content = {"epoch": 3, "model_state": state, "optimizer_state": {"state": {}, "param_groups": []}, "cfg": "A: 1"}
    torch.save(content, tmp_path / "checkpoint.pyth")
    report = models.load_weights(target, tmp_path / "checkpoint.pyth")
    assert_same_state(target.state_dict(), source.state_dict())
    assert report.layout == "PySlowFast"
    assert (report.reset, report.kept, report.dropped, report.adapted) == ((), (), (), ())
    assert set(report.loaded) == set(source.state_dict())


def test_pyslowfast_checkpoint_of_other_classes_keeps_the_head(tmp_path: Path) -> None:
    source, target = make("slowfast_r18", seed=1, num_classes=7), make("slowfast_r18")
    head = target.get_classifier().weight.clone()
    state = {slowfast_name(key): tensor for key, tensor in source.state_dict().items()}
    torch.save({"model_state": state}, tmp_path / "checkpoint.pyth")
    report = models.load_weights(target, tmp_path / "checkpoint.pyth")
    assert report.reset == ("head.bias", "head.weight")
    assert torch.equal(target.get_classifier().weight, head)
    assert torch.equal(target.state_dict()["slow.stem.conv.weight"], source.state_dict()["slow.stem.conv.weight"])


def test_misfits_are_named_in_other_layouts_too(tmp_path: Path) -> None:
    target = make("slowfast_r18")
    state = {slowfast_name(key): tensor for key, tensor in make("slowfast_r18").state_dict().items()}
    del state["s1_fuse.conv_f2s.weight"]
    state["s9.extra"] = torch.zeros(1)
    torch.save({"model_state": state}, tmp_path / "checkpoint.pyth")
    with pytest.raises(models.WeightsError, match=r"missing laterals\.0\.conv\.weight; unexpected s9\.extra$"):
        models.load_weights(target, tmp_path / "checkpoint.pyth")


# ---- Caffe2


def caffe2_blobs(state: Mapping[str, Tensor], blocks: tuple[int, ...]) -> dict[str, np.ndarray[Any, Any]]:
    """Return the blobs that Caffe2 has for a SlowFast network, with names of its zoo."""
    ends = {".weight": "_w", ".bias": "_b", ".running_mean": "_rm", ".running_var": "_riv"}
    blobs = {"model_iter": np.array([7]), "lr": np.array([0.1])}
    for key, tensor in state.items():
        if key.endswith("num_batches_tracked"):
            continue
        name = slowfast_name(key)
        prefix = "t_" if "pathway1" in name or "_fuse" in name else ""
        layer, _, kind = name.rpartition(".")
        end = ends[f".{kind}"]
        is_norm = layer.endswith("bn")
        if is_norm and kind == "weight":
            end = "_s"
        if match := re.match(r"s(\d)_fuse\.(conv_f2s|bn)", layer):
            stage = int(match[1])
            before = "pool1" if stage == 1 else f"res{stage}_{blocks[stage - 2] - 1}_branch2c_bn"
            blob = f"{before}_subsample" + ("_bn" if is_norm else "")
        elif layer.startswith("s1."):
            blob = "res_conv1_bn" if is_norm else "conv1"
        elif layer.startswith("head"):
            blob = "pred"
        else:
            match = re.match(r"s(\d)\.pathway\d_res(\d+)\.(branch1|branch2)\.?(.*)", layer)
            assert match is not None, layer
            blob = f"res{match[1]}_{match[2]}_{match[3]}{match[4]}"
        blobs[f"{prefix}{blob}{end}"] = tensor.numpy()
        blobs[f"{prefix}{blob}{end}_momentum"] = np.zeros(1)
    return blobs


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("name", ["slowfast_r50_4x16", "slow_r50"])
def test_caffe2_pickle(name: str, protocol: int, tmp_path: Path) -> None:
    source, target = make(name, seed=1), make(name)
    content = {"blobs": caffe2_blobs(source.state_dict(), (3, 4, 6, 3))}
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    report = models.load_weights(target, tmp_path / "model.pkl")
    assert_same_state(target.state_dict(), source.state_dict())
    assert report.layout == "Caffe2"


def test_caffe2_pickle_of_python_2(tmp_path: Path) -> None:
    source = make("slow_r50", seed=1)
    blobs = caffe2_blobs(source.state_dict(), (3, 4, 6, 3))
    data = pickle.dumps({"blobs": blobs}, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    (tmp_path / "model.pkl").write_bytes(data)
    target = make("slow_r50", weights=tmp_path / "model.pkl")
    assert torch.equal(target.state_dict()["path.stem.conv.weight"], source.state_dict()["path.stem.conv.weight"])


class Bomb:
    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[object, ...]:
        return (self.function, self.arguments)


@pytest.mark.parametrize(
    "bomb",
    [Bomb(Path.touch, Path("exploded")), Bomb(eval, "1"), Bomb(getattr, Path, "home")],
    ids=["path", "eval", "getattr"],
)
def test_code_in_a_pickle_is_never_run(bomb: Bomb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bomb.pkl").write_bytes(pickle.dumps({"blobs": {"conv1_w": bomb}}))
    with pytest.raises(models.WeightsError, match=r"bomb\.pkl cannot be read .*UnpicklingError"):
        make("slow_r50", weights=tmp_path / "bomb.pkl")
    assert not (tmp_path / "exploded").exists()


def test_a_small_pickle_cannot_ask_for_an_array_that_fills_the_memory(tmp_path: Path) -> None:
    array = Bomb(np._core.multiarray._reconstruct, np.ndarray, (10**10,), b"b")  # type: ignore[attr-defined]  # as NumPy
    (tmp_path / "bomb.pkl").write_bytes(pickle.dumps({"blobs": {"conv1_w": array}}))
    with pytest.raises(models.WeightsError, match=r"bomb\.pkl cannot be read .*UnpicklingError"):
        make("slow_r50", weights=tmp_path / "bomb.pkl")


@pytest.mark.parametrize("how", ["packed", "repeated"])
def test_a_small_checkpoint_cannot_fill_the_memory(how: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    if how == "repeated":
        torch.save({"a": torch.zeros(1).expand(10**5, 10**5)}, path)
    else:
        torch.save({"a": torch.zeros(100_000)}, tmp_path / "whole.pth")
        with zipfile.ZipFile(tmp_path / "whole.pth") as whole, zipfile.ZipFile(path, "w") as small:
            for member in whole.infolist():
                small.writestr(member.filename, whole.read(member), zipfile.ZIP_DEFLATED)
    with pytest.raises(models.WeightsError, match=r"bomb\.pth (is damaged: its tensor a|cannot be read)"):
        make("slow_r50", weights=path)


# ---- PyTorchVideo


@pytest.mark.parametrize(
    ("name", "module", "builder", "wrapped"),
    [
        ("slowfast_r50_4x16", "slowfast", "create_slowfast", False),
        ("slow_r50", "resnet", "create_resnet", True),
        ("c2d_r50", "resnet", "create_resnet", False),
        ("csn_r101", "csn", "create_csn", False),
        ("r2plus1d_r50", "r2plus1d", "create_r2plus1d", True),
    ],
)
def test_pytorchvideo_checkpoint(name: str, module: str, builder: str, wrapped: bool, tmp_path: Path) -> None:
    library = pytorchvideo(module)
    options: dict[str, Any] = {"model_num_class": 4}
    if name == "slowfast_r50_4x16":
        options |= {"slowfast_channel_reduction_ratio": (8,), "slowfast_conv_channel_fusion_ratio": 2}
        options |= {"slowfast_fusion_conv_kernel_size": (5, 1, 1), "slowfast_fusion_conv_stride": (8, 1, 1)}
        options |= {"head_pool_kernel_sizes": ((1, 1, 1), (8, 1, 1))}
    elif name == "csn_r101":
        options |= {"model_depth": 101, "stem_pool": nn.MaxPool3d}
    elif name != "r2plus1d_r50":
        options |= {"stem_conv_kernel_size": (1, 7, 7), "head_pool_kernel_size": (4, 1, 1)}
        if name == "c2d_r50":
            options |= {"stage1_pool": nn.MaxPool3d, "stage_conv_a_kernel_size": ((1, 1, 1),) * 4}
    theirs = library.__dict__[builder](**options)
    randomise(theirs, 1)
    state = {("model." if wrapped else "") + key: tensor for key, tensor in theirs.state_dict().items()}
    torch.save({"model_state": state}, tmp_path / "zoo.pyth")
    ours = models.create_model(name, num_classes=4)
    report = models.load_weights(ours, tmp_path / "zoo.pyth")
    assert report.layout == "PyTorchVideo"
    assert (report.reset, report.kept, report.dropped, report.adapted) == ((), (), (), ())
    assert len(report.loaded) == len(state)
    total = sum(float(tensor.double().sum()) for tensor in state.values())
    assert sum(float(tensor.double().sum()) for tensor in ours.state_dict().values()) == pytest.approx(total)


def test_pytorchvideo_checkpoint_of_x3d(tmp_path: Path) -> None:
    source, target = (models.create_model("x3d_s", num_classes=4) for _ in range(2))
    randomise(source, 1)
    state = {their_name(key): tensor for key, tensor in source.state_dict().items()}
    torch.save({"model_state": state}, tmp_path / "x3d.pyth")
    report = models.load_weights(target, tmp_path / "x3d.pyth")
    assert_same_state(target.state_dict(), source.state_dict())
    assert report.layout == "PyTorchVideo's X3D"


# ---- trainers of the seeds: ``module.`` and ``state_dict``


@pytest.mark.parametrize("key", ["state_dict", "state", "model", "model_state_dict"])
def test_wrapped_checkpoint_of_a_data_parallel_model(key: str, tmp_path: Path) -> None:
    source = make("tam_resnet18", seed=1)
    state = OrderedDict((f"module.{name}", tensor) for name, tensor in source.state_dict().items())
    content = {"epoch": 1, "arch": "TAM", key: state, "best_top1": np.float64(71.5), "optimizer": {"state": {}}}
    torch.save(content, tmp_path / "model_best.pth.tar")
    target = make("tam_resnet18", weights=tmp_path / "model_best.pth.tar")
    assert_same_state(target.state_dict(), source.state_dict())


@pytest.mark.parametrize("dropout", [True, False])
@pytest.mark.parametrize("frames", [3, 5])
def test_checkpoint_of_blvnet(frames: int, dropout: bool, tmp_path: Path) -> None:
    source = make("blvnet_tam_50", seed=1, blend_frames=frames)

    def theirs(name: str) -> str:
        if name.startswith("fc."):
            return f"module.new_{name}" if dropout else f"module.baseline_model.{name}"
        return "module.baseline_model." + re.sub(r"_se\.fc1\.|(?<=\d)\.fc1\.", ".", name)

    state = {theirs(name): tensor for name, tensor in source.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "blvnet.pth.tar")
    target = make("blvnet_tam_50", blend_frames=frames)
    report = models.load_weights(target, tmp_path / "blvnet.pth.tar")
    assert_same_state(target.state_dict(), source.state_dict())
    assert report.layout == "IBM"


def test_stream_snapshots_of_the_multiplier_seed(tmp_path: Path) -> None:
    options = {"temporal_norm": True, "flow_channels": 4}
    source, target = make("stmulnet_r50", seed=1, **options), make("stmulnet_r50", **options)
    for stream, file in (("spatial", "spt_003.pth"), ("temporal", "tmp_003.pth")):
        snapshot = {}
        for ours, tensor in source.get_submodule(stream).state_dict().items():
            block = re.sub(r"^(layer\d)\.(\d)", r"\1.sblock_\2", ours)
            name = block.replace("temporal_conv.conv", "conv2_temporal").replace("temporal_conv.bn", "bn2_temporal")
            if name == "fc.weight":
                snapshot[name] = tensor[..., None, None, None]
            elif tensor.ndim == 4:
                snapshot[name] = tensor[..., None] if "temporal" in name else tensor[:, :, None]
            else:
                snapshot[name] = tensor
        torch.save(snapshot, tmp_path / file)
    files = {"spatial": tmp_path / "spt_003.pth", "temporal": tmp_path / "tmp_003.pth"}
    reports = [models.load_weights(target, path, stream=stream) for stream, path in files.items()]
    assert_same_state(target.state_dict(), source.state_dict())
    assert {report.layout for report in reports} == {"multiplier network"}
    assert all(name.startswith("temporal.") for name in reports[1].loaded)
    again = make("stmulnet_r50", weights=files, **options)
    assert_same_state(again.state_dict(), source.state_dict())


# ---- MatConvNet


def as_matlab(network: nn.Module, names: list[str], *, sigma: bool = True) -> dict[str, Any]:
    """Return a DagNN of a residual network of images, its layers in the order of `names`."""
    state = network.state_dict()
    layers, parameters = [], []
    for name in names:
        weight = state[f"{name}.weight"]
        values = [weight.reshape(*weight.shape, 1, 1) if weight.ndim == 2 else weight]
        bias = state.get(f"{name}.bias")
        if weight.ndim > 1:
            # (O, I, H, W) there is (H, W, I, O) here.
            arrays = [values[0].permute(2, 3, 1, 0).numpy()] + ([bias.numpy()] if bias is not None else [])
            kind = "dagnn.Conv"
        else:
            variance = state[f"{name}.running_var"]
            deviation = (variance + 1e-5).sqrt() if sigma else variance
            moments = torch.stack((state[f"{name}.running_mean"], deviation), dim=1)
            arrays = [tensor.numpy() for tensor in (weight, state[f"{name}.bias"], moments)]
            kind = "dagnn.BatchNorm"
        labels = [f"{name}_{index}" for index in range(len(arrays))]
        parameters += [{"name": label, "value": array} for label, array in zip(labels, arrays, strict=True)]
        layers.append({"name": name, "type": kind, "params": np.array(labels, dtype=object), "block": {"size": 1.0}})
        layers.append({"name": f"{name}_relu", "type": "dagnn.ReLU", "params": np.array([], dtype=object), "block": {}})
    return {"layers": _structs(layers), "params": _structs(parameters), "meta": {"classes": 1.0}}


def _structs(rows: list[dict[str, Any]]) -> np.ndarray[Any, Any]:
    array = np.empty(len(rows), dtype=[(key, object) for key in rows[0]])
    for index, row in enumerate(rows):
        array[index] = tuple(row.values())
    return array


def resnet_names(*, projections_first: bool) -> list[str]:
    names = ["conv1", "bn1"]
    for stage, blocks in enumerate((3, 4, 6, 3), 1):
        for block in range(blocks):
            branch = [f"layer{stage}.{block}.{kind}{layer}" for layer in (1, 2, 3) for kind in ("conv", "bn")]
            shortcut = [f"layer{stage}.{block}.downsample.{index}" for index in (0, 1)] if block == 0 else []
            names += shortcut + branch if projections_first else branch + shortcut
    return [*names, "fc"]


def image_resnet50(classes: int, *, channels: int = 3) -> nn.Module:
    """Return torchvision's network with few channels and a bias in its first convolution, as Caffe's has."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net: nn.Module = torchvision_models.ResNet(
            torchvision_models.resnet.Bottleneck, [3, 4, 6, 3], num_classes=classes
        )
        net.conv1 = nn.Conv2d(channels, 64, 7, 2, 3)
        randomise(net, 3)
    return net


@pytest.mark.parametrize(("projections_first", "wrapped"), [(True, False), (False, True)])
def test_matconvnet_streams(projections_first: bool, wrapped: bool, tmp_path: Path) -> None:
    spatial, temporal = image_resnet50(5), image_resnet50(5, channels=6)
    names = resnet_names(projections_first=projections_first)
    for file, net in (("img.mat", spatial), ("flow.mat", temporal)):
        content = as_matlab(net, names)
        savemat(tmp_path / file, {"net": content} if wrapped else content)
    ours = undrawn("stmulnet_r50", num_classes=5, flow_channels=6, gate="none", dropout=0.0)
    before = ours.state_dict()["spatial.layer1.1.temporal_conv.conv.weight"].clone()
    reports = {
        stream: models.load_weights(ours, tmp_path / file, stream=stream)
        for stream, file in (("spatial", "img.mat"), ("temporal", "flow.mat"))
    }
    for stream, net in (("spatial", spatial), ("temporal", temporal)):
        state = ours.get_submodule(stream).state_dict()
        for name, tensor in net.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                torch.testing.assert_close(state[name], tensor, rtol=1e-5, atol=1e-6, msg=f"{stream}.{name}")
        report = reports[stream]
        assert report.layout == "MatConvNet"
        kept = {name for name in report.kept if not name.endswith("num_batches_tracked")}
        assert kept
        assert all(".temporal_conv." in name for name in kept)
    assert torch.equal(ours.state_dict()["spatial.layer1.1.temporal_conv.conv.weight"], before)
    clip = (random_clip(1, 3, 2, 32, 32), random_clip(1, 6, 2, 32, 32))
    ours.double().eval()
    with torch.no_grad():
        maps = nn.Sequential(*list(spatial.double().eval().children())[:-2])
        pooled = torch.stack([maps(frame) for frame in clip[0].unbind(2)]).amax(0).mean((2, 3))
        assert isinstance(ours, StMulNet)
        logits, _ = ours.stream_logits(clip)
        assert relative_gap(logits, spatial.get_submodule("fc")(pooled)) < 1e-4


def test_matconvnet_file_for_a_frame_model_keeps_a_head_of_other_classes(tmp_path: Path) -> None:
    net = image_resnet50(9)
    net.get_submodule("conv1").register_parameter("bias", None)
    savemat(tmp_path / "net.mat", {"net": as_matlab(net, resnet_names(projections_first=True))})
    ours = undrawn("resnet50", num_classes=5)
    report = models.load_weights(ours, tmp_path / "net.mat")
    assert report.reset == ("fc.bias", "fc.weight")
    torch.testing.assert_close(ours.state_dict()["conv1.weight"], net.state_dict()["conv1.weight"])


@pytest.mark.parametrize(("channels", "biased"), [(3, True), (6, False)])
def test_matconvnet_file_is_identified_and_its_first_bias_changes_nothing(
    channels: int, biased: bool, tmp_path: Path
) -> None:
    net = image_resnet50(5, channels=channels)
    if not biased:
        net.get_submodule("conv1").register_parameter("bias", None)
    path = tmp_path / "net.mat"
    savemat(path, {"net": as_matlab(net, resnet_names(projections_first=True))})
    identity = models.identify_weights(path)
    image, stream = identity.fits
    assert (identity.layout, identity.num_classes) == ("MatConvNet", 5)
    assert "by their order" in identity.notes[0]
    assert (image.model, image.in_channels) == ("resnet50", channels)
    assert (stream.model, stream.stream) == ("stmulnet_r50", "spatial" if channels == 3 else "temporal")
    assert stream.options.get("stem_bias", True) is biased
    assert stream.reset == tuple(f"{stream.stream}.fc.{part}" for part in ("bias", "weight"))
    assert stream.new
    assert all("temporal_conv" in name for name in stream.new)

    # The network without the bias, and the stream with it, compute the same as the file's.
    clip = random_clip(1, channels, 1, 32, 32)
    net.double().eval()
    frames = undrawn("resnet50", num_classes=5, in_channels=channels, weights=path).double().eval()
    with torch.no_grad():
        assert relative_gap(frames(clip), net(clip[:, :, 0])) < 1e-4
    whole = undrawn("stmulnet_r50", num_classes=5, flow_channels=channels)
    part = stream.stream or ""
    models.load_weights(whole, path, stream=part)
    bias = whole.state_dict()[f"{part}.conv1.bias"]
    torch.testing.assert_close(bias, net.state_dict()["conv1.bias"].float() if biased else torch.zeros(64))


def test_matconvnet_file_that_does_not_fit_is_named(tmp_path: Path) -> None:
    content = as_matlab(image_resnet50(5), resnet_names(projections_first=True))
    savemat(tmp_path / "net.mat", {"net": content})
    with pytest.raises(models.WeightsError, match="it has 107 layers with parameters, the model"):
        make("resnet18", weights=tmp_path / "net.mat")
    with pytest.raises(models.WeightsError, match="conv1 of the file is a conv of shape"):
        make("resnet50", weights=tmp_path / "net.mat")
    savemat(tmp_path / "other.mat", {"values": np.zeros(3)})
    with pytest.raises(models.WeightsError, match=r"other\.mat does not contain a MatConvNet DagNN"):
        make("resnet50", weights=tmp_path / "other.mat")
    (tmp_path / "broken.mat").write_bytes(b"no matlab")
    with pytest.raises(models.WeightsError, match=r"broken\.mat cannot be read"):
        make("resnet50", weights=tmp_path / "broken.mat")
    with pytest.raises(models.WeightsError, match=r"absent\.mat does not exist"):
        make("resnet50", weights=tmp_path / "absent.mat")


# ---- image networks of torchvision


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    net = torchvision_models.resnet18(weights=None, num_classes=10)
    randomise(net, 5)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(net.state_dict(), path)
    return path, net.state_dict()


Saved = tuple[Path, dict[str, Tensor]]


@pytest.mark.parametrize("name", ["resnet18", "tsn_resnet18", "tsm_resnet18", "tam_resnet18"])
def test_image_weights_fill_a_frame_model(name: str, resnet18: Saved) -> None:
    path, theirs = resnet18
    ours = undrawn(name, num_classes=4)
    report = models.load_weights(ours, path)
    for key, tensor in theirs.items():
        if not key.startswith("fc."):
            assert torch.equal(ours.state_dict()[key], tensor), key
    assert report.reset == ("fc.bias", "fc.weight")
    assert not report.adapted
    assert all(".tam." in key for key in report.kept)
    assert bool(report.kept) == (name == "tam_resnet18")


def test_flow_network_gets_the_colours_average_for_every_channel(resnet18: Saved) -> None:
    path, theirs = resnet18
    ours = undrawn("tsm_resnet18", num_classes=4, in_channels=10)
    report = models.load_weights(ours, path)
    expected = theirs["conv1.weight"].mean(1, keepdim=True).expand(-1, 10, -1, -1)
    assert torch.equal(ours.state_dict()["conv1.weight"], expected)
    assert report.adapted == ("conv1.weight",)
    # An image whose channels are all alike gives what a grey image gives times 10 / 3.
    grey = torch.randn(1, 1, 16, 16)
    ten = nn.functional.conv2d(grey.expand(-1, 10, -1, -1), ours.state_dict()["conv1.weight"])
    three = nn.functional.conv2d(grey.expand(-1, 3, -1, -1), theirs["conv1.weight"])
    torch.testing.assert_close(ten, three * 10 / 3, rtol=1e-4, atol=1e-4)


def test_stacked_frames_share_the_kernel(resnet18: Saved) -> None:
    path, theirs = resnet18
    ours = undrawn("resnet18", num_classes=4, seq_len=5)
    assert models.load_weights(ours, path).adapted == ("conv1.weight",)
    assert torch.equal(ours.state_dict()["conv1.weight"], theirs["conv1.weight"].repeat(1, 5, 1, 1) / 5)


@pytest.mark.parametrize("name", ["two_stream_resnet18", "stmulnet_r18"])
def test_image_weights_fill_both_streams(name: str, resnet18: Saved) -> None:
    path, theirs = resnet18
    ours = undrawn(name, num_classes=4)
    report = models.load_weights(ours, path)
    first, second = ours.classifier_names[0].split(".")[0], ours.classifier_names[1].split(".")[0]
    state = ours.state_dict()
    for stream in (first, second):
        for key, tensor in theirs.items():
            if not key.startswith(("fc.", "conv1.")):
                assert torch.equal(state[f"{stream}.{key}"], tensor), key
    assert torch.equal(state[f"{first}.conv1.weight"], theirs["conv1.weight"])
    assert report.adapted == (f"{second}.conv1.weight",)
    assert report.dropped == ("fc.bias", "fc.weight")
    assert set(report.reset) == {f"{stream}.fc.{kind}" for stream in (first, second) for kind in ("weight", "bias")}
    if name == "stmulnet_r18":
        assert not state["spatial.conv1.bias"].any()
        only = undrawn(name, num_classes=4)
        flow = only.state_dict()["temporal.conv1.weight"].clone()
        models.load_weights(only, path, stream="spatial")
        assert torch.equal(only.state_dict()["spatial.conv1.weight"], theirs["conv1.weight"])
        assert torch.equal(only.state_dict()["temporal.conv1.weight"], flow)


@pytest.mark.parametrize("channels", [3, 2])
def test_image_weights_are_inflated(channels: int, tmp_path: Path) -> None:
    net = torchvision_models.resnet50(weights=None, num_classes=10)
    torch.save(net.state_dict(), tmp_path / "resnet50.pth")
    theirs = net.state_dict()
    ours = undrawn("i3d_r50", num_classes=4, in_channels=channels)
    report = models.load_weights(ours, tmp_path / "resnet50.pth")
    stem = ours.state_dict()["path.stem.conv.weight"]
    image = (
        theirs["conv1.weight"] if channels == 3 else theirs["conv1.weight"].mean(1, keepdim=True).expand(-1, 2, -1, -1)
    )
    assert stem.shape[2] == 5
    torch.testing.assert_close(stem.sum(2), image, rtol=1e-5, atol=1e-7)
    assert all(torch.equal(stem[:, :, frame], stem[:, :, 0]) for frame in range(5))
    assert "path.stem.conv.weight" in report.adapted
    assert "path.stem.norm.weight" not in report.adapted
    assert set(report.reset) == {"head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("name", "oracle", "options", "auxiliary"),
    [
        ("inception_v3", "inception_v3", {"init_weights": False}, "AuxLogits."),
        ("tam_inception_v1", "googlenet", {"init_weights": False, "aux_logits": True}, "aux"),
    ],
)
def test_auxiliary_heads_of_image_networks_are_dropped(
    name: str, oracle: str, options: dict[str, Any], auxiliary: str, tmp_path: Path
) -> None:
    net = torchvision_models.get_model(oracle, weights=None, num_classes=10, **options)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    ours = undrawn(name, num_classes=4)
    report = models.load_weights(ours, tmp_path / "net.pth")
    heads = {key for key in net.state_dict() if key.startswith(auxiliary)}
    assert heads <= set(report.dropped)
    assert set(report.dropped) - heads <= {"fc.weight", "fc.bias"}
    assert set(report.loaded) == {key for key in net.state_dict() if key not in heads and not key.startswith("fc.")}


def test_weights_of_another_image_network_are_a_misfit(resnet18: Saved) -> None:
    path, _ = resnet18
    for name in ("resnet50", "tam_resnet50", "inception_v1", "i3d_r50", "stmulnet_r50"):
        with pytest.raises(
            models.WeightsError, match=r"resnet18\.pth does not fit \w+: (missing|unexpected|of another)"
        ):
            undrawn(name, num_classes=4, weights=path)


def test_a_stream_that_the_model_lacks_is_refused(resnet18: Saved) -> None:
    with pytest.raises(models.WeightsError, match="stmulnet_r18 has no part 'sound'"):
        models.load_weights(make("stmulnet_r18"), resnet18[0], stream="sound")

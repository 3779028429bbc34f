"""Files of programs whose networks are forms of ours: written under those programs' names, identified, and loaded."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import models
from models.weights.identity import identify_weights

from ..architectures.test_r3d import their_name as hara_name
from .test_formats import Bomb, assert_same_state, make, slowfast_name

State = dict[str, Tensor]


def written(source: models.VideoModel, name_of: Callable[[str], str]) -> State:
    return {name_of(name): tensor for name, tensor in source.state_dict().items()}


def assert_loads(source: models.VideoModel, path: Path, layout: str) -> None:
    """Check that the file is identified as `source`'s network with its options, and loads into it completely."""
    given: dict[str, Any] = dict(source.settings.hparams)
    defaults = source.info.defaults()
    found = {fit.model: fit.options for fit in identify_weights(path).fits}
    shown = {name: value for name, value in given.items() if value != defaults[name]}
    assert found[source.name] == shown
    target = make(source.name, **given)
    report = models.load_weights(target, path)
    assert_same_state(target.state_dict(), source.state_dict())
    assert report.layout == layout
    assert (report.reset, report.dropped, report.adapted) == ((), (), ())
    assert all(name.endswith("num_batches_tracked") for name in report.kept)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("r3d_18_hara", {}),
        ("r3d_34_hara", {"shortcut": "padding"}),
        ("r3d_50_hara", {}),
        ("r2plus1d_18_hara", {"stem_frames": 3}),
        ("r2plus1d_50_hara", {}),
    ],
)
def test_checkpoint_of_hara(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    source = make(name, seed=1, **options)
    form = {"split": "r2plus1d" in name, "bottleneck": "_50" in name}
    state = written(source, lambda key: "module." + hara_name(key, **form))
    torch.save({"epoch": 200, "arch": "resnet-18", "state_dict": state}, tmp_path / "r3d_K_200ep.pth")
    assert_loads(source, tmp_path / "r3d_K_200ep.pth", "3D-ResNets-PyTorch")
    assert [fit.model for fit in identify_weights(tmp_path / "r3d_K_200ep.pth").fits] == [name]


def test_networks_of_hara_that_are_not_here_are_refused(tmp_path: Path) -> None:
    state = {hara_name(key, split=False, bottleneck=False): t for key, t in make("r3d_18_hara").state_dict().items()}
    short = {key: tensor for key, tensor in state.items() if not re.match(r"layer\d\.1\.", key)}
    torch.save(short, tmp_path / "r3d10.pth")
    with pytest.raises(models.WeightsError, match="it is R3D with 1 and 1 blocks in its middle stages"):
        models.load_weights(make("r3d_18_hara"), tmp_path / "r3d10.pth")


def kylemin_name(ours: str) -> str:
    """Return the name in kylemin's S3D of a tensor of ours."""
    if ours.startswith("classifier."):
        return ours.replace("classifier.1.", "fc.0.")
    match = re.fullmatch(r"features\.(\d+)\.(?:branch(\d)\.)?(.*)", ours)
    assert match is not None, ours
    layer, branch, rest = match.groups()
    *numbers, tensor = rest.split(".")
    prefix = f"base.{layer}." + (f"branch{branch}." if branch else "")
    if branch == "0":
        numbers = ["0", *numbers]
    # What is left after the place in a branch is one layer, or two halves of two layers each.
    place, numbers = (numbers[:1], numbers[1:]) if branch else ([], numbers)
    half = {"0": "_s", "1": "_t"}[numbers[0]] if len(numbers) == 2 else ""
    layer_name = {"0": "conv", "1": "bn"}[numbers[-1]] + half
    return prefix + ".".join([*place, layer_name, tensor])


def test_file_of_kylemins_s3d(tmp_path: Path) -> None:
    source = make("s3d", seed=1)
    state = written(source, kylemin_name)
    assert {"base.0.conv_t.weight", "base.2.bn.bias", "base.5.branch0.0.conv.weight", "fc.0.bias"} <= state.keys()
    assert {"base.15.branch1.1.bn_s.running_var", "base.8.branch3.1.conv.weight"} <= state.keys()
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "S3D_kinetics400.pt")
    assert_loads(source, tmp_path / "S3D_kinetics400.pt", "kylemin's S3D")


def non_local_name(ours: str) -> str:
    """Return PySlowFast's name of a tensor of ours, of a non-local block too."""
    match = re.fullmatch(r"\w+\.stages\.(\d)\.(\d+)\.nl\.(\w+)\.(\w+)", ours)
    if match is None:
        return slowfast_name(ours)
    stage, block, layer, tensor = match.groups()
    layer = layer if layer == "norm" else f"conv_{layer}"
    return f"s{int(stage) + 2}.pathway0_nonlocal{block}.{layer}.{tensor}"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("i3d_r50", "softmax"), ("c2d_r50", "softmax"), ("slow_r50", "dot_product"), ("slowfast_r50_4x16", "dot_product")],
)
def test_pyslowfasts_non_local_networks(name: str, kind: str, tmp_path: Path) -> None:
    source = make(name, seed=1, non_local=kind)
    state = written(source, non_local_name)
    assert "s4.pathway0_nonlocal5.conv_theta.weight" in state
    torch.save({"model_state": state}, tmp_path / "nln.pyth")
    assert_loads(source, tmp_path / "nln.pyth", "PySlowFast")


def test_caffe2s_non_local_network(tmp_path: Path) -> None:
    source = make("i3d_r50", seed=1, non_local="softmax")
    blobs = {}
    ends = {"weight": "w", "bias": "b", "running_mean": "rm", "running_var": "riv"}
    for name, tensor in source.state_dict().items():
        layer, _, kind = non_local_name(name).rpartition(".")
        if kind == "num_batches_tracked":
            continue
        layer = re.sub(r"s(\d)\.pathway0_nonlocal(\d+)\.(?:conv_)?", r"nonlocal_conv\1_\2_", layer)
        layer = re.sub(r"s(\d)\.pathway0_res(\d+)\.(branch\d)\.?", r"res\1_\2_\3", layer).replace("_norm", "_bn")
        layer = layer.replace("s1.pathway0_stem.conv", "conv1").replace("s1.pathway0_stem.bn", "res_conv1_bn")
        layer = layer.replace("head.projection", "pred")
        end = "s" if kind == "weight" and layer.endswith("_bn") else ends[kind]
        blobs[f"{layer}_{end}"] = tensor.numpy()
    assert "nonlocal_conv4_5_theta_w" in blobs
    (tmp_path / "I3D_NLN_8x8_R50.pkl").write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    assert_loads(source, tmp_path / "I3D_NLN_8x8_R50.pkl", "Caffe2")


def x3d_name(ours: str) -> str:
    """Return PySlowFast's name of a tensor of our X3D."""
    layer, _, tensor = ours.rpartition(".")
    stem = {"stem.conv_space": "s1.pathway0_stem.conv_xy", "stem.conv_time": "s1.pathway0_stem.conv"}
    ends = {"widen.conv": "conv_5", "widen.norm": "conv_5_bn", "project.conv": "lin_5", "project.norm": "lin_5_bn"}
    plain = stem | {"stem.norm": "s1.pathway0_stem.bn", "head": "head.projection"}
    plain |= {name: f"head.{end}" for name, end in ends.items()}
    if layer in plain:
        return f"{plain[layer]}.{tensor}"
    match = re.fullmatch(r"stages\.(\d)\.(\d+)\.(.+)", layer)
    assert match is not None, ours
    parts = {"shortcut.conv": "branch1", "shortcut.norm": "branch1_bn"}
    parts |= {"branch.gate.squeeze": "branch2.se.fc1", "branch.gate.excite": "branch2.se.fc2"}
    parts |= {f"branch.conv_{letter}": f"branch2.{letter}" for letter in "abc"}
    parts |= {f"branch.norm_{letter}": f"branch2.{letter}_bn" for letter in "abc"}
    return f"s{int(match[1]) + 2}.pathway0_res{match[2]}.{parts[match[3]]}.{tensor}"


@pytest.mark.parametrize(
    ("name", "options"),
    [("x3d_m", {}), ("x3d_s", {"project_norm": True}), ("x3d_l", {})],
)
def test_pyslowfasts_x3d(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    source = make(name, seed=1, head_width=32, shortcut_norm=True, **options)
    state = written(source, x3d_name)
    assert "s2.pathway0_res0.branch1_bn.weight" in state
    torch.save({"model_state": state}, tmp_path / "x3d.pyth")
    assert_loads(source, tmp_path / "x3d.pyth", "PySlowFast's X3D")
    # The default form lacks the norm that only strides: the message names what the file has.
    with pytest.raises(models.WeightsError, match=r"unexpected stages\.0\.0\.shortcut\.norm\.bias"):
        models.load_weights(make(name, head_width=32, **options), tmp_path / "x3d.pyth")


def paddle_name(ours: str) -> str:
    """Return the name in PaddlePaddle's SlowFast of a tensor of ours."""
    name = re.sub(r"(_stem|_fuse)\.(conv|bn|conv_f2s)\.", r"\1._\2.", slowfast_name(ours))
    return name.replace(".running_mean", "._mean").replace(".running_var", "._variance")


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_paddles_slowfast(prefix: str, paired: bool, tmp_path: Path) -> None:
    source = make("slowfast_r50_4x16", seed=1)
    content: dict[str, Any] = {}
    for name, tensor in written(source, paddle_name).items():
        if name.endswith("num_batches_tracked"):
            continue
        key = name if name.startswith("head.") else prefix + name
        array = tensor.numpy().T if name == "head.projection.weight" else tensor.numpy()
        content[key] = (f"conv3d_{len(content)}.w_0", np.ascontiguousarray(array)) if paired else array
    assert {f"{prefix}s1.pathway0_stem._bn._variance", f"{prefix}s2_fuse._conv_f2s.weight"} <= content.keys()
    assert f"{prefix}s2.pathway1_res0.branch2.a_bn._mean" in content
    content["StructuredToParameterName@@"] = {name: f"param_{name}" for name in content}
    path = tmp_path / "slowfast_epoch195.pdparams"
    path.write_bytes(pickle.dumps(content, protocol=2))
    assert_loads(source, path, "PaddlePaddle")


@pytest.mark.parametrize(
    "content", [[1, 2], {"a": Bomb(Path.touch, Path("exploded"))}, {}], ids=["list", "code", "empty"]
)
def test_other_contents_of_a_file_of_paddle_are_refused(
    content: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "odd.pdparams"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(models.WeightsError, match=r"odd\.pdparams"):
        models.load_weights(make("slowfast_r18"), path)
    assert not (tmp_path / "exploded").exists()

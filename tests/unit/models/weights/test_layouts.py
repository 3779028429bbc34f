"""Networks of other programs: identified by their own names and shapes, loaded whole, and the same function."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F

import models
from models.weights.recognise import all_layouts

from ..oracles import TOLERANCE, Undrawn, random_clip, relative_gap
from .published import FOLDER, filled, read_published

State = dict[str, Tensor]


def of_mmaction(state: State) -> Any:
    return {"meta": {"epoch": 100, "mmaction_version": "1.2.0"}, "state_dict": state}


def of_data_parallel(state: State) -> Any:
    return {
        "epoch": 50,
        "arch": "resnet50",
        "state_dict": {f"module.{name}": tensor for name, tensor in state.items()},
        "best_prec1": torch.tensor(70.5),
    }


def of_pyslowfast(state: State) -> Any:
    return {"epoch": 195, "model_state": state, "cfg": "TRAIN:\n  ENABLE: true\n"}


def alone(state: State) -> Any:
    return state


_WRAPPERS: dict[str, Callable[[State], Any]] = {
    "mmaction": of_mmaction,
    "mit": of_data_parallel,
    "ibm": of_data_parallel,
    "mbiparva": alone,
    "hara": of_data_parallel,
    "kylemin": of_data_parallel,
    "pyslowfast": of_pyslowfast,
}
_STRIDES = {"stem_temporal_stride": 2, "stem_pool_temporal_stride": 2}
_SMALL_TABLES = {"table_frames": 4, "table_size": 64}
_MMACTION, _MIT = "MMAction2", "MIT's temporal-shift-module"
# Of each list: the layout, the network, and the models that it fits with the options to set.
EXPECTED: dict[str, tuple[str, str, list[tuple[str, dict[str, Any]]]]] = {
    "mmaction-slowfast-r50-4x16": (
        _MMACTION,
        "SlowFast",
        [("slowfast_r50_4x16", {"lateral_norm": False, "slow_index": "stride"})],
    ),
    "mmaction-slowfast-r50-8x8": (
        _MMACTION,
        "SlowFast",
        [("slowfast_r50_8x8", {"lateral_norm": False, "slow_index": "stride"})],
    ),
    "mmaction-slowonly-r50": (_MMACTION, "SlowOnly", [("slow_r50", {})]),
    "mmaction-i3d-r50": (_MMACTION, "I3D", [("i3d_r50", _STRIDES)]),
    "mmaction-i3d-r50-nl": (
        _MMACTION,
        "I3D with non-local blocks",
        [
            ("i3d_r50", {**_STRIDES, "non_local": kind, "non_local_pool": "after"})
            for kind in ("gaussian", "dot_product")
        ],
    ),
    "mmaction-x3d-m": (
        _MMACTION,
        "X3D",
        [(model, {"shortcut_norm": True}) for model in ("x3d_m", "x3d_s", "x3d_xs")],
    ),
    "mmaction-csn-r101": (_MMACTION, "CSN", [("csn_r101", {})]),
    "mmaction-csn-r152": (_MMACTION, "CSN", [("csn_r152", {})]),
    "mmaction-csn-r152-ip": (_MMACTION, "CSN", [("csn_r152_ip", {})]),
    "mmaction-r2plus1d-r34": (
        _MMACTION,
        "R(2+1)D",
        [
            (
                "r2plus1d_34",
                {"midplanes": "paper", "stem_midplanes": "paper", "shortcut": "split", "stem_pool": True},
            )
        ],
    ),
    "mmaction-c3d": (_MMACTION, "C3D", [("c3d", {})]),
    "mmaction-tanet-r50": (_MMACTION, "TANet", [("tanet_resnet50", {})]),
    "mmaction-tsn-r50": (_MMACTION, "TSN", [("tsn_resnet50", {})]),
    "mmaction-tsm-r50": (_MMACTION, "TSM", [("tsm_resnet50", {})]),
    "mmaction-tsm-r50-nl": (
        _MMACTION,
        "TSM with non-local blocks",
        [("tsm_resnet50", {"non_local": True, "non_local_form": form}) for form in ("tsm", "tsm_dot_product")],
    ),
    "mmaction-swin-t": (_MMACTION, "Video Swin", [("swin3d_t", {})]),
    "mmaction-mvit-s": (_MMACTION, "MViT v2", [("mvit_v2_s", {})]),
    "mit-tsn-r50": (_MIT, "TSN", [("tsn_resnet50", {})]),
    "mit-tsm-r50": (_MIT, "TSM", [("tsm_resnet50", {})]),
    "mit-tsm-r50-block": (_MIT, "TSM", [("tsm_resnet50", {"shift_place": "block"})]),
    "mit-tsm-r50-flow": (_MIT, "TSM", [("tsm_resnet50", {})]),
    "mit-tsm-r50-nl": (_MIT, "TSM", [("tsm_resnet50", {"non_local": True, "non_local_form": "tsm"})]),
    "ibm-i3d": ("IBM's action-recognition-pytorch", "I3D", [("i3d_ibm", {})]),
    "ibm-s3d": ("IBM's action-recognition-pytorch", "S3D", [("s3d_ibm", {})]),
    "ibm-s3d-dw": ("IBM's action-recognition-pytorch", "S3D", [("s3d_ibm", {"dw_t_conv": True})]),
    "ibm-i3d-resnet18": ("IBM's I3D-ResNet", "I3D-ResNet", [("r3d_18", {"stem_pool": True})]),
    "ibm-i3d-resnet50": ("IBM's I3D-ResNet", "I3D-ResNet", [("r3d_50", {})]),
    "ibm-s3d-resnet18": ("as it is", "", [("s3d_resnet18", {})]),
    "ibm-tam-resnet18": ("as it is", "TAM", [("tam_resnet18", {}), ("tam_resnet18", {"blend_method": "max"})]),
    "ibm-tam-b5-max-resnet18": (
        "as it is",
        "TAM",
        [("tam_resnet18", {"blend_frames": 5}), ("tam_resnet18", {"blend_frames": 5, "blend_method": "max"})],
    ),
    "ibm-tam-allc-resnet18": (
        "as it is",
        "TAM",
        [
            ("tam_resnet18", {"blend_depthwise": False}),
            ("tam_resnet18", {"blend_depthwise": False, "blend_method": "max"}),
        ],
    ),
    "mbiparva-slowfast-r50": (
        "mbiparva's SlowFast",
        "SlowFast",
        [("slowfast_r50_4x16", {"lateral_norm": False, "head_bias": False, "slow_index": "stride"})],
    ),
}
EXPECTED |= {
    "hara-r3d18": ("3D-ResNets-PyTorch", "R3D", [("r3d_18_hara", {})]),
    "hara-r3d50": ("3D-ResNets-PyTorch", "R3D", [("r3d_50_hara", {})]),
    "hara-r2plus1d18": ("3D-ResNets-PyTorch", "R(2+1)D", [("r2plus1d_18_hara", {})]),
    "kylemin-s3d": ("kylemin's S3D", "S3D", [("s3d", {})]),
    "pyslowfast-x3d-m": (
        "PySlowFast's X3D",
        "X3D",
        [(model, {"shortcut_norm": True}) for model in ("x3d_m", "x3d_s", "x3d_xs")],
    ),
    "pyslowfast-mvit-b": ("PySlowFast's MViT", "MViT", [("mvit_v1_b", _SMALL_TABLES)]),
    "pyslowfast-mvitv2-s": ("PySlowFast's MViT", "MViT v2", [("mvit_v2_s", _SMALL_TABLES)]),
    "pyslowfast-mvitv2-b": ("PySlowFast's MViT", "MViT v2", [("mvit_v2_b", _SMALL_TABLES)]),
    "pyslowfast-i3d-r50-nl": ("PySlowFast", "ResNet of one path", [("i3d_r50", {"non_local": "softmax"})]),
}
# Which of the fits is the network that the list's logits are of, where names do not tell.
_FIT = {"ibm-tam-b5-max-resnet18": 1, "mmaction-x3d-m": 0}
_ALLOWED = 1e-4
"""Relative gap of logits that square roots which differ in the last place may cause; see `published.waves`."""
_SLOW = (
    "mmaction-csn-r101",
    "mmaction-mvit-s",
    "pyslowfast-mvit-b",
    "pyslowfast-mvitv2-b",
    "mmaction-i3d-r50-nl",
    "mmaction-slowfast-r50-8x8",
    "ibm-s3d-dw",
    "hara-r3d50",
    # What follows is large; a smaller file of the same layout is always tried.
    "hara-r2plus1d18",
    "ibm-i3d-resnet50",
    "mit-tsm-r50-block",
    "mit-tsm-r50-flow",
    "mmaction-c3d",
    "mmaction-csn-r152",
    "mmaction-csn-r152-ip",
    "mmaction-i3d-r50",
    "mmaction-r2plus1d-r34",
    "mmaction-slowonly-r50",
    "mmaction-tanet-r50",
    "mmaction-tsm-r50",
    "mmaction-tsm-r50-nl",
    # These are tried whole with other tests, or another file of the same program has the same layers.
    "ibm-tam-allc-resnet18",
    "ibm-tam-resnet18",
    "mit-tsm-r50",
    "mit-tsm-r50-nl",
    "mmaction-slowfast-r50-4x16",
    "mmaction-tsn-r50",
)


def write(name: str, path: Path, *, is_off: bool = False) -> Path:
    file = path / f"{name}{'-off' if is_off else ''}.pth"
    torch.save(_WRAPPERS[name.partition("-")[0]](read_published(name).state(is_off=is_off)), file)
    return file


def test_every_list_has_a_test() -> None:
    others = {"mbiparva-multiplier-spatial", "mbiparva-multiplier-temporal"}
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(EXPECTED) | others


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in _SLOW else name for name in EXPECTED]
)
def test_a_network_is_identified_loaded_whole_and_computes_the_same(name: str, tmp_path: Path) -> None:
    published, path = read_published(name), write(name, tmp_path)
    layout, network, fits = EXPECTED[name]
    identity = models.identify_weights(path)
    assert (identity.layout, identity.network, identity.num_classes) == (layout, network, 5)
    assert identity.left_over == ()
    assert sorted((fit.model, sorted(fit.options.items())) for fit in identity.fits) == sorted(
        (model, sorted(options.items())) for model, options in fits
    )

    model, options = fits[_FIT.get(name, 0)]
    channels = published.clip().shape[1]
    assert {fit.in_channels for fit in identity.fits} == {channels}
    with Undrawn():
        ours = models.create_model(model, num_classes=5, in_channels=channels, **options).double().eval()
    report = models.load_weights(ours, path)
    assert (report.reset, report.kept, report.dropped) == ((), (), ())
    with torch.no_grad():
        # Both are functions of the same numbers, as far as a unit in the last place of some of them allows.
        assert relative_gap(ours(published.clip()), published.logits()) < _ALLOWED


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_what_a_unit_in_the_last_place_does_is_what_is_allowed(name: str, tmp_path: Path) -> None:
    published = read_published(name)
    model, options = EXPECTED[name][2][_FIT.get(name, 0)]
    with torch.random.fork_rng():
        ours = models.create_model(model, num_classes=5, in_channels=published.clip().shape[1], **options)
    ours.double().eval()
    found = []
    with torch.no_grad():
        for is_off in (False, True):
            models.load_weights(ours, write(name, tmp_path, is_off=is_off))
            found.append(ours(published.clip(is_off=is_off)))
    assert 10 * TOLERANCE < relative_gap(*found) < _ALLOWED, "another function differs by more"


def test_a_stream_of_the_multiplier_network_names_its_part_and_options(tmp_path: Path) -> None:
    options = {
        "temporal_norm": True,
        "gate_block": 2,
        "gate_preact": False,
        "pool_order": "space_first",
        "head_relu": True,
    }
    for stream, of, channels in (("spatial", "rgb", 3), ("temporal", "flow", 20)):
        identity = models.identify_weights(write(f"mbiparva-multiplier-{stream}", tmp_path))
        (fit,) = identity.fits
        assert (fit.model, fit.stream, fit.input, fit.in_channels) == ("stmulnet_r50", stream, of, channels)
        assert fit.options == options
        assert fit.reset == (f"{stream}.fc.bias", f"{stream}.fc.weight")


def test_the_head_of_mmaction_slowfast_takes_its_columns_in_another_order(tmp_path: Path) -> None:
    """The fast path's 256 columns come first there, the slow path's 2048 first here."""
    path = write("mmaction-slowfast-r50-4x16", tmp_path)
    with Undrawn():
        model = models.create_model(
            "slowfast_r50_4x16", num_classes=5, lateral_norm=False, slow_index="stride", weights=path
        ).eval()
    name = "cls_head.fc_cls"
    weight, bias = filled(f"{name}.weight", (5, 2304)), filled(f"{name}.bias", (5,))
    clip = random_clip(1, 3, 16, 32, 32)
    model.double()
    with torch.no_grad():
        slow, fast = model.forward_features(clip).split((2048, 256), dim=1)
        theirs = F.linear(torch.cat((fast, slow), dim=1), weight.double(), bias.double())
        assert relative_gap(model(clip), theirs) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("slowfast_r50_4x16", {"lateral_norm": False}, "the file is SlowFast, which slowfast_r50_4x16 computes only"),
    ],
)
def test_another_option_is_told(name: str, options: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    path = write("mmaction-slowfast-r50-4x16", tmp_path)
    with Undrawn():
        target = models.create_model(name, num_classes=5, **options)
    report = models.load_weights(target, path)
    assert report.notes == (f"{sentence} with slow_index = stride",)


def test_shift_weights_in_a_network_without_a_shift_are_told(tmp_path: Path) -> None:
    path = write("mit-tsm-r50", tmp_path)
    with Undrawn():
        target = models.create_model("tsn_resnet50", num_classes=5)
    report = models.load_weights(target, path)
    assert report.notes == (
        "the file is TSM, the network of tsm_resnet50; its tensors all fit tsn_resnet50, another function",
    )


@pytest.mark.parametrize("name", ["mit-tsn-r50", "mmaction-tsn-r50"])
def test_a_file_of_frames_is_not_inflated_without_its_head(name: str, tmp_path: Path) -> None:
    path = write(name, tmp_path)
    with Undrawn():
        target, other = (models.create_model("i3d_r50", num_classes=classes) for classes in (5, 4))
    before = {key: tensor.clone() for key, tensor in target.state_dict().items()}
    with pytest.raises(models.WeightsError, match=r"its classifier .* has the same 5 classes"):
        models.load_weights(target, path)
    assert all(torch.equal(tensor, before[key]) for key, tensor in target.state_dict().items())
    # With other classes the head could not be kept anyway, and the report tells what the file is.
    report = models.load_weights(other, path)
    assert report.notes == (
        "the file is TSN, the network of tsn_resnet50; its kernels were fitted to i3d_r50, another function",
    )


def test_the_other_form_of_i3d_is_loaded_with_its_head_and_told(tmp_path: Path) -> None:
    path = write("ibm-i3d", tmp_path)
    report = models.load_weights(models.create_model("i3d_inception", num_classes=5), path)
    assert (report.reset, report.dropped, report.kept) == ((), (), ())
    assert report.notes == (
        "the file is I3D, the network of i3d_ibm; its tensors all fit i3d_inception, another function",
    )


def test_the_page_of_layouts_names_each() -> None:
    page = (Path(__file__).parents[4] / "docs" / "weights.md").read_text()
    elsewhere = (Path(__file__).parents[4] / "docs" / "fine-tuning.md").read_text()
    for layout in all_layouts():
        name = layout.name.removeprefix("Hugging Face's ")
        assert name == "another program" or name in page or name in elsewhere, layout.name
    assert all(f"`{model}`" in page for model in ("i3d_ibm", "s3d_ibm", "tanet_resnet50", "c3d", "mvit_v2_s"))


def deeper(name: str, *, is_filled: bool = True) -> State:
    """Return the tensors of the list for 50 layers with 23 blocks in the third stage, as 101 layers have them.

    Unless `is_filled` they are zeros, which identify a file as well.
    """
    shapes = dict(read_published(name).shapes)
    for theirs, shape in read_published(name).shapes.items():
        if "layer3.5." in theirs:
            shapes |= {theirs.replace("layer3.5.", f"layer3.{block}."): shape for block in range(6, 23)}
    shifted = {theirs: re.search(r"layer\d\.(\d+)\.conv1\.(?:conv\.)?net\.", theirs) for theirs in shapes}
    # Both programs shift before every second block of 101 layers.
    plain = {theirs: theirs.replace(".net.", ".") for theirs, found in shifted.items() if found and int(found[1]) % 2}
    return {
        plain.get(theirs, theirs): filled(theirs, shape) if is_filled else torch.zeros(()).expand(shape)
        for theirs, shape in shapes.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "model", "parameters"),
    [
        # torchvision publishes 44,549,160 for ResNet-101, of which 2,049,000 are the classifier of 1,000 classes.
        ("mit-tsn-r50", "tsn_resnet101", 42_500_160 + 10_245),
        ("mit-tsm-r50", "tsm_resnet101", 42_500_160 + 10_245),
        ("mit-tsm-r50-block", "tsm_resnet101", 42_500_160 + 10_245),
        ("mmaction-tsn-r50", "tsn_resnet101", 42_500_160 + 10_245),
        ("mmaction-tsm-r50", "tsm_resnet101", 42_500_160 + 10_245),
        # PySlowFast's at 400 classes, with kernels of 7 frames in the laterals (as of 50 layers), without their norms,
        # and with 5 classes.
        ("mmaction-slowfast-r50-8x8", "slowfast_r101_8x8", 62_826_968 + 86_272 - 395 * 2305 - 2 * 464),
    ],
)
def test_networks_of_101_layers_are_identified_and_loaded_whole(
    name: str, model: str, parameters: int, tmp_path: Path
) -> None:
    state, path = deeper(name), tmp_path / "r101.pth"
    torch.save(_WRAPPERS[name.partition("-")[0]](state), path)
    identity = models.identify_weights(path)
    layout, network, _ = EXPECTED[name]
    assert (identity.layout, identity.network, identity.left_over) == (layout, network, ())
    (fit,) = identity.fits
    assert fit.model == model
    options: dict[str, Any] = dict(fit.options)
    with Undrawn():
        ours = models.create_model(model, num_classes=5, **options)
    report = models.load_weights(ours, path)
    assert (report.reset, report.kept, report.dropped, report.notes) == ((), (), (), ())
    assert sum(tensor.numel() for tensor in ours.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mit-tsm-r50", {}),
        # Around blocks each is shifted, of whatever depth.
        ("mit-tsm-r50-block", {"shift_place": "block", "shift_every": 1}),
        ("mmaction-tsm-r50", {}),
    ],
)
def test_which_blocks_are_shifted_is_in_the_names(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    torch.save({"state_dict": deeper(name, is_filled=False)}, tmp_path / "r101.pth")
    identity = models.identify_weights(tmp_path / "r101.pth")
    assert [(fit.model, dict(fit.options)) for fit in identity.fits] == [("tsm_resnet101", options)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "width"), [("swin3d_s", 96), ("swin3d_b", 128)])
@pytest.mark.parametrize("program", ["torchvision", "MMAction2"])
def test_the_larger_video_swins_are_identified_with_the_published_size(
    name: str, width: int, program: str, tmp_path: Path
) -> None:
    published = torchvision.models.get_model_weights(name)["KINETICS400_V1"].meta
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, weights=None).state_dict()
    if program == "MMAction2":
        theirs = {mmaction_name_of_swin(key): tensor for key, tensor in theirs.items()}
        assert theirs.keys() > {
            key.replace("layers.2.blocks.5.", "layers.2.blocks.17.") for key in read_published("mmaction-swin-t").shapes
        }
    state = {
        key: torch.zeros(tensor.shape, dtype=tensor.dtype)
        for key, tensor in theirs.items()
        if not key.endswith("relative_position_index")
    }
    torch.save({"state_dict": state}, tmp_path / "swin.pth")
    identity = models.identify_weights(tmp_path / "swin.pth")
    assert [(fit.model, dict(fit.options)) for fit in identity.fits] == [(name, {})]
    assert (identity.num_classes, identity.left_over, identity.parameters) == (400, (), published["num_params"])
    assert theirs["backbone.norm3.bias" if program == "MMAction2" else "norm.bias"].shape == (8 * width,)


def mmaction_name_of_swin(name: str) -> str:
    """Return MMAction2's name of a tensor of torchvision's Video Swin."""
    if name.startswith("head."):
        return name.replace("head.", "cls_head.fc_cls.")
    if match := re.match(r"features\.(\d)\.", name):
        stage, is_merging = divmod(int(match[1]), 2)
        part = f"layers.{stage}." + ("downsample." if is_merging else "blocks.")
        name = name.replace(match[0], part).replace(".mlp.0.", ".mlp.fc1.").replace(".mlp.3.", ".mlp.fc2.")
    return "backbone." + re.sub(r"^norm\.", "norm3.", name)


_OF_MVIT = [
    (r"conv_proj", "patch_embed.projection"),
    (r"pos_encoding\.class_token", "cls_token"),
    (r"attn\.project\.0", "attn.proj"),
    (r"attn\.pool_([qkv])\.pool", r"attn.pool_\1"),
    (r"attn\.pool_([qkv])\.norm_act\.0", r"attn.norm_\1"),
    (r"(blocks\.\d+)\.project", r"\1.proj"),
    (r"mlp\.0", "mlp.fc1"),
    (r"mlp\.3", "mlp.fc2"),
    (r"^norm\.", "norm3."),
]


@pytest.mark.parametrize(("model", "size"), [("mvit_v2_s", 34_537_744), ("mvit_v2_b", 51_230_128)])
def test_mmactions_mvit_is_identified_by_its_depth(model: str, size: int, tmp_path: Path) -> None:
    with torch.device("meta"):
        ours = models.create_model(model, num_classes=400).state_dict()
    state = {}
    for name, tensor in ours.items():
        theirs = name.replace("head.1.", "cls_head.fc_cls.")
        if theirs == name:
            for pattern, replacement in _OF_MVIT:
                theirs = re.sub(pattern, replacement, theirs)
            theirs = f"backbone.{theirs}"
        shape = (1, 1, *tensor.shape) if theirs.endswith("cls_token") else tensor.shape
        state[theirs] = torch.zeros(1).expand(shape)
    if model == "mvit_v2_s":
        assert state.keys() == read_published("mmaction-mvit-s").shapes.keys()
    torch.save(of_mmaction(state), tmp_path / "mvit.pth")
    identity = models.identify_weights(tmp_path / "mvit.pth")
    assert [(fit.model, dict(fit.options)) for fit in identity.fits] == [(model, {})]
    assert (identity.network, identity.num_classes, identity.parameters) == ("MViT v2", 400, size)

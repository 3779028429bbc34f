"""Files of MViT and Hiera: of PySlowFast, of PyTorchVideo, of the authors, fine-tuned and pre-trained."""

from __future__ import annotations

import re
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import models

from ..oracles import TOLERANCE, random_clip, randomise, relative_gap

_TABLES: dict[str, Any] = {"table_frames": 4, "table_size": 64}
_HIERA: dict[str, Any] = {**_TABLES, "width": 16, "heads": 2}


def of_pytorchvideo() -> nn.Module:
    """Return PyTorchVideo's MViT-B, with fewer channels, for clips of four frames and 64 pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it compiles its own functions in a way that PyTorch will give up
        create = import_module("pytorchvideo.models.vision_transformers").create_multiscale_vision_transformers

        net: nn.Module = create(
            spatial_size=64,
            temporal_size=4,
            depth=16,
            patch_embed_dim=16,
            head_num_classes=5,
            embed_dim_mul=[[1, 2.0], [3, 2.0], [14, 2.0]],
            atten_head_mul=[[1, 2.0], [3, 2.0], [14, 2.0]],
            pool_q_stride_size=[[1, 1, 2, 2], [3, 1, 2, 2], [14, 1, 2, 2]],
            pool_kv_stride_adaptive=[1, 8, 8],
            pool_kvq_kernel=[3, 3, 3],
        )
    randomise(net, seed=2)
    return net.eval()


def test_pytorchvideos_mvit_computes_the_same_after_loading(tmp_path: Path) -> None:
    net, path = of_pytorchvideo(), tmp_path / "MVIT_B_16x4.pyth"
    torch.save({"model_state": net.state_dict()}, path)
    identity = models.identify_weights(path)
    assert (identity.layout, identity.network, identity.num_classes) == ("PyTorchVideo's MViT", "MViT", 5)
    assert [(fit.model, dict(fit.options)) for fit in identity.fits] == [("mvit_v1_b", {**_TABLES, "width": 16})]
    assert identity.left_over == ()
    assert "adds 0.00001 to variances" in identity.notes[0]
    ours = models.create_model("mvit_v1_b", num_classes=5, width=16, **_TABLES).double().eval()
    report = models.load_weights(ours, path)
    assert (report.reset, report.kept, report.dropped) == ((), (), ())
    for name, module in net.named_modules():
        if isinstance(module, nn.LayerNorm) and ".attn." in name:
            module.eps = 1e-6  # what the note says
    clip = random_clip(2, 3, 4, 64, 64)
    with torch.no_grad():
        assert relative_gap(ours(clip), net.double()(clip)) < TOLERANCE


def of_pyslowfast() -> dict[str, Tensor]:
    """Return the same network's tensors under PySlowFast's names, with queries, keys and values apart."""
    names = {"cls_positional_encoding.": "", ".patch_model.": ".proj.", "norm_embed.": "norm."}
    state = {}
    for theirs, tensor in of_pytorchvideo().state_dict().items():
        name = theirs.replace("head.proj.", "head.projection.")
        for old, new in names.items():
            name = name.replace(old, new)
        state[name] = tensor
    return state


def test_queries_keys_and_values_of_their_own_are_joined(tmp_path: Path) -> None:
    apart = of_pyslowfast()
    whole = {name: tensor for name, tensor in apart.items() if not re.search(r"attn\.[qkv]\.", name)}
    for name in [name for name in apart if ".attn.q." in name]:
        parts = [apart[name.replace(".q.", f".{part}.")] for part in "qkv"]
        whole[name.replace(".q.", ".qkv.")] = torch.cat(parts)
    states = []
    for file, state in (("apart.pyth", apart), ("whole.pyth", whole)):
        torch.save({"model_state": state}, tmp_path / file)
        identity = models.identify_weights(tmp_path / file)
        assert (identity.layout, identity.left_over) == ("PySlowFast's MViT", ())
        model = models.create_model("mvit_v1_b", num_classes=5, width=16, **_TABLES)
        models.load_weights(model, tmp_path / file)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], tensor) for name, tensor in states[1].items())


def test_a_file_that_lacks_a_part_of_the_attention_is_named(tmp_path: Path) -> None:
    state = of_pyslowfast()
    del state["blocks.0.attn.k.weight"]
    torch.save({"model_state": state}, tmp_path / "cut.pyth")
    with pytest.raises(models.WeightsError, match=r"MViT, but lacks the tensor blocks\.0\.attn\.k\.weight"):
        models.identify_weights(tmp_path / "cut.pyth")


def test_the_tables_say_for_how_many_frames_a_file_is(tmp_path: Path) -> None:
    state = of_pyslowfast()
    for frames, model in ((16, "mvit_v1_b"), (32, "mvit_v1_b_32x3")):
        state["pos_embed_temporal"] = torch.zeros(1, frames // 2, 16)
        state["pos_embed_spatial"] = torch.zeros(1, 56 * 56, 16)
        torch.save({"model_state": state}, tmp_path / "k400.pyth")
        fits = models.identify_weights(tmp_path / "k400.pyth").fits
        assert [(fit.model, dict(fit.options)) for fit in fits] == [(model, {"width": 16})]


def hiera() -> models.VideoModel:
    model = models.create_model("hiera_b", num_classes=5, **_HIERA)
    randomise(model, seed=6)
    return model


def test_the_authors_hiera_loads_as_it_is(tmp_path: Path) -> None:
    model, path = hiera(), tmp_path / "hiera_base_16x224.pth"
    torch.save({"model_state": model.state_dict()}, path)
    identity = models.identify_weights(path)
    assert [(fit.model, dict(fit.options)) for fit in identity.fits] == [("hiera_b", {**_TABLES, "width": 16})]
    loaded = models.create_model("hiera_b", num_classes=5, **_HIERA)
    report = models.load_weights(loaded, path)
    assert (report.reset, report.kept, report.dropped) == ((), (), ())
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_a_pretraining_of_hiera_leaves_norm_and_head_new(tmp_path: Path) -> None:
    model, path = hiera(), tmp_path / "mae_hiera_base_16x224.pth"
    head = ("norm.", "head.")
    kept = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(head)}
    more = {
        "encoder_norm.weight": torch.ones(128),
        "multi_scale_fusion_heads.0.weight": torch.zeros(4, 4, 1, 8, 8),
        "mask_token": torch.zeros(1, 1, 8),
        "decoder_pos_embed": torch.zeros(1, 8, 8),
        "decoder_blocks.0.attn.qkv.weight": torch.zeros(24, 8),
        "decoder_norm.weight": torch.ones(8),
        "decoder_pred.weight": torch.zeros(4, 8),
    }
    torch.save({"model_state": {**kept, **more}}, path)
    identity = models.identify_weights(path)
    assert (identity.layout, identity.num_classes) == ("Hiera's pre-training", None)
    assert [(fit.model, dict(fit.options)) for fit in identity.fits] == [("hiera_b", {**_TABLES, "width": 16})]
    loaded = models.create_model("hiera_b", num_classes=3, **_HIERA)
    report = models.load_weights(loaded, path)
    assert set(report.reset) == {"norm.weight", "norm.bias", "head.projection.weight", "head.projection.bias"}
    assert set(report.dropped) == set(more)
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in kept.items())


# ---- MaskFeat

_MASKFEAT: dict[str, Any] = {**_TABLES, "width": 8, "widen": "mlp"}
_OF_MMACTION = [
    (r"^head\.1\.", "cls_head.fc_cls."),
    (r"^pos_encoding\.class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.projection."),
    (r"\.attn\.project\.0\.", ".attn.proj."),
    (r"\.pool_([qkv])\.pool\.", r".pool_\1."),
    (r"\.pool_([qkv])\.norm_act\.0\.", r".norm_\1."),
    (r"^(blocks\.\d+)\.project\.", r"\1.proj."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.3\.", ".mlp.fc2."),
    (r"^norm\.", "norm3."),
    (r"^(?!cls_head)", "backbone."),
]


def of_mmaction(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of our MViT v2 under MMAction2's names."""
    theirs = {}
    for ours, tensor in state.items():
        name = ours
        for pattern, replacement in _OF_MMACTION:
            name = re.sub(pattern, replacement, name)
        theirs[name] = tensor.view(1, 1, -1) if name.endswith("cls_token") else tensor
    return theirs


def test_maskfeats_fine_tuned_network_is_recognised_by_where_it_widens(tmp_path: Path) -> None:
    model, path = models.create_model("mvit_v2_s", num_classes=5, **_MASKFEAT), tmp_path / "mvit-small_ft.pth"
    torch.save({"state_dict": of_mmaction(model.state_dict())}, path)
    identity = models.identify_weights(path)
    assert (identity.layout, identity.network, identity.left_over) == ("MMAction2", "MViT v2", ())
    assert [(fit.model, dict(fit.options)) for fit in identity.fits] == [("mvit_v2_s", _MASKFEAT)]
    loaded = models.create_model("mvit_v2_s", num_classes=5, **_MASKFEAT)
    assert models.load_weights(loaded, path).kept == ()
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    with pytest.raises(models.WeightsError, match=r"of another shape .* and must be"):
        models.load_weights(
            models.create_model("mvit_v2_s", num_classes=5, **{**_MASKFEAT, "widen": "attention"}), path
        )


def test_a_pretraining_of_maskfeat_leaves_norm_and_head_new(tmp_path: Path) -> None:
    model, path = models.create_model("mvit_v2_s", num_classes=5, **_MASKFEAT), tmp_path / "maskfeat.pth"
    state = of_mmaction(model.state_dict())
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(("cls_head.", "backbone.norm3."))}
    # Without a stride in the last stage, its second layer sees as many places as the first: 4 a side for 64 pixels.
    line = torch.arange(7.0)[:, None].expand(7, 8).clone()
    last = {f"backbone.blocks.15.attn.rel_pos_{axis}": line for axis in "hw"}
    more = {
        "backbone.mask_token": torch.zeros(1, 1, 8),
        "backbone.norm2.weight": torch.ones(64),
        "neck.fc.weight": torch.zeros(108, 64),
    }
    torch.save({"state_dict": {**kept, **last, **more}}, path)
    identity = models.identify_weights(path)
    assert (identity.layout, identity.network, identity.num_classes) == ("MMSelfSup", "MaskFeat", None)
    (fit,) = identity.fits
    assert (fit.model, fit.options) == ("mvit_v2_s", _MASKFEAT)
    assert fit.new == ("head.1.bias", "head.1.weight", "norm.bias", "norm.weight")
    loaded = models.create_model("mvit_v2_s", num_classes=5, **_MASKFEAT)
    report = models.load_weights(loaded, path)
    assert report.reset == fit.new
    assert set(report.dropped) == set(more)
    tensors = loaded.state_dict()
    # Three places of a line of seven: its middle, and one and a third of its length apart.
    expected = torch.tensor([3 - 7 / 3, 3, 3 + 7 / 3])[:, None].expand(3, 8)
    torch.testing.assert_close(tensors["blocks.15.attn.rel_pos_h"], expected)
    new = {*fit.new, "blocks.15.attn.rel_pos_h", "blocks.15.attn.rel_pos_w"}
    assert all(torch.equal(tensors[name], tensor) for name, tensor in model.state_dict().items() if name not in new)

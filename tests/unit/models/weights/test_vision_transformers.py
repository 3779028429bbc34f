"""Files of VideoMAE and TimeSformer: of the authors, wrapped, pre-trained, and of Hugging Face's library."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import models

from ..architectures import test_timesformer, test_video_vit
from ..oracles import TOLERANCE, random_clip, randomise, relative_gap

_VIDEOMAE: dict[str, Any] = {"width": 24, "head_width": 8, "table_frames": 4, "table_size": 48}
_TIMESFORMER: dict[str, Any] = {"width": 24, "head_width": 8, "table_frames": 3, "table_size": 32}


def source() -> models.VideoModel:
    model = models.create_model("videomae_vit_s", num_classes=5, **_VIDEOMAE)
    randomise(model, seed=4)
    return model


def target(classes: int = 5) -> models.VideoModel:
    return models.create_model("videomae_vit_s", num_classes=classes, **_VIDEOMAE)


@pytest.mark.parametrize("wrapper", ["module", "model"])
def test_the_authors_files_load_as_they_are(wrapper: str, tmp_path: Path) -> None:
    model, path = source(), tmp_path / "checkpoint-99.pth"
    torch.save({wrapper: model.state_dict(), "epoch": 99, "args": Namespace(lr=1e-3, model="vit_small")}, path)
    report = models.load_weights(loaded := target(), path)
    assert (report.layout, report.network) == ("VideoMAE", "VideoMAE")
    assert set(report.loaded) == set(model.state_dict())
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_a_pretraining_fills_the_blocks_and_leaves_the_head_new(tmp_path: Path) -> None:
    model, path = source(), tmp_path / "pretrained.pth"
    of_encoder = {
        f"encoder.{name}": tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith(("head.", "fc_norm."))
    }
    more = {
        "encoder.norm.weight": torch.ones(24),
        "encoder.norm.bias": torch.zeros(24),
        "encoder_to_decoder.weight": torch.zeros(12, 24),
        "mask_token": torch.zeros(1, 1, 12),
        "decoder.blocks.0.attn.qkv.weight": torch.zeros(36, 12),
        "decoder.head.weight": torch.zeros(1536, 12),
    }
    torch.save({"model": {**of_encoder, **more}, "epoch": 1600}, path)
    report = models.load_weights(loaded := target(7), path)
    assert set(report.reset) == {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"}
    assert set(report.dropped) == set(more)
    assert "pre-training" in report.notes[0]
    for name, tensor in of_encoder.items():
        assert torch.equal(loaded.state_dict()[name.removeprefix("encoder.")], tensor), name
    # Only the head may be missing.
    del of_encoder["encoder.blocks.3.norm1.weight"]
    torch.save({"model": {**of_encoder, **more}}, path)
    with pytest.raises(models.WeightsError, match=r"missing blocks\.3\.norm1\.weight"):
        models.load_weights(target(7), path)


@pytest.mark.parametrize("early", [False, True], ids=["new names", "early names"])
def test_hugging_faces_videomae_computes_the_same_after_loading(early: bool, tmp_path: Path) -> None:
    theirs = test_video_vit.oracle(4, 48)
    randomise(theirs, seed=1)
    state = theirs.state_dict()
    if early:
        state = {
            name.replace("query.bias", "q_bias").replace("value.bias", "v_bias"): tensor
            for name, tensor in state.items()
        }
    torch.save(state, tmp_path / "pytorch_model.bin")
    report = models.load_weights(ours := target(), tmp_path / "pytorch_model.bin")
    assert report.layout == "Hugging Face's VideoMAE"
    assert not report.dropped
    clip = random_clip(1, 3, 4, 48, 48)
    with torch.no_grad():
        expected = theirs.double().eval()(clip.transpose(1, 2)).logits
        assert relative_gap(ours.double().eval()(clip), expected) < TOLERANCE


def test_hugging_faces_pretraining_is_read(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in test_video_vit.oracle(4, 48).state_dict().items() if "videomae." in name}
    more = {"videomae.layernorm.weight": torch.ones(24), "decoder.head.weight": torch.zeros(3, 3)}
    torch.save(state | more, tmp_path / "pytorch_model.bin")
    report = models.load_weights(target(), tmp_path / "pytorch_model.bin")
    assert set(report.reset) == {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"}
    assert set(report.dropped) == set(more)


def test_hugging_faces_timesformer_computes_the_same_after_loading(tmp_path: Path) -> None:
    theirs = test_timesformer.oracle()
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    ours = models.create_model("timesformer_b", num_classes=5, **_TIMESFORMER)
    report = models.load_weights(ours, tmp_path / "pytorch_model.bin")
    assert report.layout == "Hugging Face's TimeSformer"
    clip = random_clip(1, 3, 3, 32, 32)
    with torch.no_grad():
        expected = theirs.double().eval()(clip.transpose(1, 2)).logits
        assert relative_gap(ours.double().eval()(clip), expected) < TOLERANCE


def test_the_authors_timesformer_has_patches_of_images(tmp_path: Path) -> None:
    model = models.create_model("timesformer_b", num_classes=5, **_TIMESFORMER)
    randomise(model, seed=2)
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    state["model.patch_embed.proj.weight"] = state["model.patch_embed.proj.weight"].squeeze(2)
    torch.save({"model_state": state, "epoch": 14}, tmp_path / "TimeSformer.pyth")
    other = models.create_model("timesformer_b", num_classes=5, **_TIMESFORMER)
    assert models.load_weights(other, tmp_path / "TimeSformer.pyth").layout == "TimeSformer"
    assert all(torch.equal(other.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def full_size(model: nn.Module) -> dict[str, Tensor]:
    """Return tensors of the model's names and shapes that take no room."""
    return {name: torch.zeros(1).expand(tensor.shape) for name, tensor in model.state_dict().items()}


def test_files_of_the_published_sizes_are_identified(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    with torch.device("meta"):
        base = models.create_model("videomae_vit_b", num_classes=174)
        long = models.create_model("timesformer_b", num_classes=400, table_frames=96)
    torch.save({"module": full_size(base)}, path)
    identity = models.identify_weights(path)
    assert (identity.layout, identity.num_classes, identity.left_over) == ("VideoMAE", 174, ())
    assert [(fit.model, dict(fit.options)) for fit in identity.fits] == [("videomae_vit_b", {})]

    pretrained = {f"encoder.{name}": tensor for name, tensor in full_size(base).items() if "head." not in name}
    torch.save({"model": pretrained | {"mask_token": torch.zeros(1, 1, 384)}}, path)
    identity = models.identify_weights(path)
    assert (identity.num_classes, identity.left_over) == (None, ("mask_token",))
    (fit,) = identity.fits
    assert (fit.model, fit.reset) == ("videomae_vit_b", ())
    assert fit.new == ("fc_norm.bias", "fc_norm.weight", "head.bias", "head.weight")

    torch.save({"model_state": full_size(long)}, path)
    (fit,) = models.identify_weights(path).fits
    assert (fit.model, dict(fit.options)) == ("timesformer_b", {"table_frames": 96})

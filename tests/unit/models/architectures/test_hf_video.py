"""Video classifiers of `transformers`: the library's outputs, gradients everywhere, files, and errors in a sentence."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForVideoClassification

import models

from ..oracles import TOLERANCE, random_clip, randomise, relative_gap

SMALL: dict[str, Any] = {"width": 24, "head_width": 12, "depth": 2, "frames": 4, "size": 32}
ARCHITECTURES = ["vivit", "vjepa2"]


def build(architecture: str, **options: Any) -> models.VideoModel:
    return models.create_model("hf_video", num_classes=5, architecture=architecture, **SMALL | options)


def oracle(architecture: str) -> nn.Module:
    sizes: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    clip = {"crop_size": 32, "frames_per_clip": 4} if architecture == "vjepa2" else {"image_size": 32, "num_frames": 4}
    inner = {} if architecture == "vjepa2" else {"intermediate_size": 96}
    config = AutoConfig.for_model(architecture, num_labels=5, **sizes, **clip, **inner)
    net: nn.Module = AutoModelForVideoClassification.from_config(config)
    randomise(net, seed=1)
    return net


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_file_of_the_library_gives_its_logits(architecture: str, tmp_path: Path) -> None:
    theirs, ours = oracle(architecture), build(architecture)
    torch.save(theirs.state_dict(), tmp_path / "model.bin")
    report = models.load_weights(ours, tmp_path / "model.bin")
    assert not [name for name in report.kept if not name.startswith("head.")]
    ours.head.load_state_dict(theirs.get_submodule("classifier").state_dict())  # type: ignore[union-attr]  # linear
    clip = random_clip(2, 3, 4, 32, 32)
    with torch.no_grad():
        expected = theirs.double().eval()(clip.transpose(1, 2)).logits
        assert relative_gap(ours.double().eval()(clip), expected) < TOLERANCE


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_step_reaches_every_parameter(architecture: str) -> None:
    model = build(architecture)
    clip = random_clip(2, 3, 4, 32, 32).float()
    loss = F.cross_entropy(model(clip), torch.tensor([0, 1]))
    loss.backward()
    # What several processes would wait for in vain.
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]
    torch.optim.AdamW(model.param_groups(weight_decay=0.0), lr=1e-3).step()
    assert F.cross_entropy(model(clip), torch.tensor([0, 1])) < loss


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layers_are_the_embedding_and_the_blocks(architecture: str) -> None:
    model = build(architecture)
    assert model.num_layers == 3
    names = [name for name, _ in model.named_parameters()]
    first = [name for name in names if model.layer_index(name) == 0]
    assert any("patch_embeddings" in name for name in first)
    blocks = [name for name in names if re.search(r"\.layers?\.1\.", name) and "pooler" not in name]
    assert {model.layer_index(name) for name in blocks} == {2}
    assert model.layer_index("head.weight") == 3


def test_files_of_earlier_versions_of_the_library_are_read(tmp_path: Path) -> None:
    theirs = oracle("vivit")
    early = [
        (r"vivit\.layers\.", "vivit.encoder.layer."),
        (r"\.attention\.q_proj\.", ".attention.attention.query."),
        (r"\.attention\.k_proj\.", ".attention.attention.key."),
        (r"\.attention\.v_proj\.", ".attention.attention.value."),
        (r"\.attention\.o_proj\.", ".attention.output.dense."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
    ]
    state = {}
    for name, tensor in theirs.state_dict().items():
        renamed = name
        for pattern, replacement in early:
            renamed = re.sub(pattern, replacement, renamed)
        state[renamed] = tensor
    assert state.keys() != theirs.state_dict().keys()
    torch.save(state, tmp_path / "model.bin")
    identity = models.identify_weights(tmp_path / "model.bin")
    assert (identity.layout, identity.network) == ("Hugging Face's ViViT", "ViViT")
    report = models.load_weights(ours := build("vivit"), tmp_path / "model.bin")
    assert report.layout == "Hugging Face's ViViT"
    own = ours.state_dict()
    assert all(torch.equal(own[f"net.{name}"], value) for name, value in theirs.state_dict().items() if "vivit" in name)
    assert torch.equal(own["head.weight"], theirs.state_dict()["classifier.weight"])


def test_copies_round_trip() -> None:
    model, other = build("vivit").eval(), build("vivit").eval()
    clip = random_clip(1, 3, 4, 32, 32).float()
    with torch.no_grad():
        expected = model(clip)
        assert not torch.equal(other(clip), expected)
        other.load_state_dict(model.state_dict(), strict=True)
        assert torch.equal(other(clip), expected)
        model.reset_classifier(9)
        assert model(clip).shape == (1, 9)
    assert build("vivit", in_channels=2)(torch.zeros(1, 2, 4, 32, 32)).shape == (1, 5)


def test_a_clip_of_another_size_is_one_sentence() -> None:
    message = "hf_video takes clips of 4 frames and 32 x 32 pixels with these options, not (4, 32, 48)"
    with pytest.raises(models.InvalidClipError, match=re.escape(message)):
        build("vivit")(torch.zeros(1, 3, 4, 32, 48))


def test_without_transformers_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(models.InvalidModelError, match=r"needs transformers: pip install 'video-hpo\[transformers\]'"):
        build("vivit")


@pytest.mark.parametrize(("option", "unit"), [("frames", "frames"), ("size", "pixels a side")])
def test_another_clip_than_the_options_say_is_refused_without_a_network(option: str, unit: str) -> None:
    clip = {"frames": 4, "size": 32}
    models.check_clip("hf_video", frames=4, size=32, hparams=clip)
    with pytest.raises(models.InvalidClipError, match=rf"{unit} with these .*: set model\.{option} to clip\.{option}"):
        models.check_clip("hf_video", frames=4, size=32, hparams={**clip, option: 48})

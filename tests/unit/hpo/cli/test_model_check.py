"""`hpo models check`: what passes, and what each kind of wrong model is told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from hpo.cli.app import app
from hpo.cli.model_check import smallest_clip
from models import Clip, HParam, Integer, ModelInfo, ModelSettings, VideoModel, catalogue, model_info


class Plain(VideoModel):
    """The average of each channel, scaled; nothing is wrong with it."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self.scale = nn.Parameter(torch.ones(3))
        self.head = self.make_classifier(3, settings.num_classes)

    def forward_features(self, clip: Tensor) -> Tensor:
        return clip.mean((2, 3, 4)) * self.scale


class Unused(Plain):
    """A parameter that nothing reads."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self.unread = nn.Parameter(torch.ones(1))


class Forgetful(Plain):
    """A random number that its state dict does not hold."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self.offset = float(torch.rand(()))

    def forward_features(self, clip: Tensor) -> Tensor:
        return super().forward_features(clip) + self.offset


class Infinite(Plain):
    """Logits that are not numbers."""

    def forward_features(self, clip: Tensor) -> Tensor:
        return super().forward_features(clip) / 0.0


CARDS = tuple(
    ModelInfo(
        name=f"own_{kind.__name__.lower()}",
        family="Own",
        paper="ours",
        clip=Clip(frames=8, stride=2, size=32, mean=(0.5,) * 3, std=(0.5,) * 3),
        builder=f"{__name__}:{kind.__name__}",
        hparams=(HParam(name="width", default=8, accepts=Integer(low=1, high=64), doc="Nothing."),),
    )
    for kind in (Plain, Unused, Forgetful, Infinite)
)


@pytest.fixture(autouse=True)
def own_cards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Add the cards above to the catalogue, as an installed package would."""
    monkeypatch.setattr(catalogue, "_installed_cards", lambda: ((card, "a test") for card in CARDS))
    catalogue._catalogue.cache_clear()
    yield
    catalogue._catalogue.cache_clear()


def checked(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["models", "check", *arguments])


def rows(result: Result) -> dict[str, str]:
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in result.output.splitlines()]
    return {row[0]: row[1] for row in cells if len(row) == 2}


def test_a_right_model_passes_every_check() -> None:
    result = checked("own_plain", "--option", "width=16")
    assert result.exit_code == 0, result.output
    found = rows(result)
    assert list(found) == ["build", "forward", "backward", "step", "export and reload"]
    assert all(value.startswith("passed: ") for value in found.values())
    assert found["build"] == "passed: 23 parameters with 5 classes"
    assert "2 clips of 1 frames, 1 pixels" in result.output


@pytest.mark.parametrize(
    ("name", "check", "message"),
    [
        ("own_unused", "backward", "no gradient reaches unread"),
        ("own_forgetful", "export and reload", "gives other logits"),
        ("own_infinite", "forward", "not all logits are finite"),
    ],
)
def test_a_wrong_model_fails_where_it_is_wrong(name: str, check: str, message: str) -> None:
    result = checked(name)
    assert result.exit_code != 0
    found = rows(result)
    order = list(found)
    assert found[check].startswith("failed: ")
    assert message in found[check]
    assert all(found[key].startswith("passed") for key in order[: order.index(check)])
    assert all(found[key] == "not run" for key in order[order.index(check) + 1 :])
    assert f"{name} does not pass '{check}'" in str(result.exception)


def test_the_clip_can_be_chosen() -> None:
    assert "2 clips of 5 frames, 7 pixels" in checked("own_plain", "--frames", "5", "--size", "7").output


def test_wrong_options_are_one_sentence() -> None:
    assert "must be NAME=VALUE" in str(checked("own_plain", "-o", "width").exception)
    assert "has no hyperparameter 'depth'" in str(checked("own_plain", "-o", "depth=3").exception)
    assert "there is no model 'own_plane'" in str(checked("own_plane").exception)


def test_the_smallest_clip_keeps_the_rules_of_the_card() -> None:
    assert smallest_clip(model_info("slowfast_r18"), {"alpha": 8, "beta_inv": 8, "width": 64}) == (8, 16)
    assert smallest_clip(model_info("hf_video"), {"frames": 4, "size": 32}) == (4, 32)
    assert smallest_clip(model_info("videomae_vit_s"), {"head_width": 64, "width": 384}) == (2, 16)

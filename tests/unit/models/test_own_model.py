"""A person's own model, installed as a package: the example of the documentation, run."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import models
from models import catalogue
from tests.documents import blocks

Install = Callable[..., Path]


@pytest.fixture
def example() -> dict[str, str]:
    """Return the document's code blocks by the first words that tell them apart."""
    network, card, entry, use = (block.text for block in blocks("docs/own-model.md", "python", "toml"))
    return {"network": network, "card": card, "entry": entry, "use": use}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, example: dict[str, str]) -> Iterator[Install]:
    """Install a package as a wheel would lie in site-packages: its modules and its dist-info."""

    def install(*, package: str = "my_models", entry: str | None = None, card: str | None = None) -> Path:
        site = tmp_path / f"site-{package}"
        (site / package).mkdir(parents=True)
        (site / package / "__init__.py").touch()
        (site / package / "network.py").write_text(example["network"])
        (site / package / "cards.py").write_text(example["card"] if card is None else card)
        info = site / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        found = re.search(r'^(\w+) = "(.*)"$', example["entry"], flags=re.MULTILINE)
        assert found is not None
        line = f"{found[1]} = {found[2]}" if entry is None else entry
        (info / "entry_points.txt").write_text(f"[video_hpo.models]\n{line}\n")
        monkeypatch.syspath_prepend(str(site))
        catalogue._catalogue.cache_clear()
        return site

    yield install
    catalogue._catalogue.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0].startswith("my_")]:
        del sys.modules[name]


def test_the_documented_package_is_a_model_like_any_other(install: Install, example: dict[str, str]) -> None:
    install()
    assert "tiny_c3d" in models.list_models()
    assert models.model_info("tiny_c3d").family == "C3D"
    with torch.random.fork_rng():
        scope: dict[str, models.VideoModel] = {}
        exec(example["use"], scope)  # noqa: S102 -- the document's own lines
        model = scope["model"]
        assert model.num_features == 64
        logits = model(torch.randn(2, 3, 4, 16, 16))
    assert logits.shape == (2, 101)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert models.search_space("tiny_c3d")["model.width"] == {"type": "ordinal", "choices": [16, 32, 64]}
    with pytest.raises(models.InvalidModelError, match="width must be a whole number from 4 to 128"):
        models.model_settings("tiny_c3d", num_classes=2, hparams={"width": 1})
    with pytest.raises(models.InvalidClipError, match="needs at least 8 pixels"):
        models.check_clip("tiny_c3d", frames=8, size=7)


def test_the_entry_points_group_is_the_documented_one(example: dict[str, str]) -> None:
    assert f'[project.entry-points."{catalogue.ENTRY_POINTS}"]' in example["entry"]


def test_its_weights_are_saved_and_loaded(install: Install, tmp_path: Path) -> None:
    install()
    model = models.create_model("tiny_c3d", num_classes=3)
    torch.save(model.state_dict(), tmp_path / "own.pt")
    other = models.create_model("tiny_c3d", num_classes=5, weights=tmp_path / "own.pt")
    assert torch.equal(other.get_parameter("body.0.weight"), model.get_parameter("body.0.weight"))


def test_listing_it_needs_no_torch(install: Install) -> None:
    site = install()
    program = f"""
import sys
sys.path.insert(0, {str(site)!r})
import models
assert "tiny_c3d" in models.list_models()
models.model_settings("tiny_c3d", num_classes=3)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=120)


def test_without_the_package_there_is_no_such_model() -> None:
    with pytest.raises(models.UnknownModelError, match="tiny_c3d"):
        models.model_info("tiny_c3d")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("broken = my_models.nowhere:TINY", "cannot be imported (ModuleNotFoundError: "),
        ("broken = my_models.cards:ABSENT", "cannot be imported (AttributeError: "),
        ("broken = my_models.cards:Clip", "is not a models.ModelInfo: it must be one, or a tuple of them"),
    ],
)
def test_a_broken_entry_point_is_one_sentence_that_names_it(install: Install, entry: str, message: str) -> None:
    install(entry=entry)
    with pytest.raises(models.InvalidModelError) as caught:
        models.list_models()
    assert str(caught.value).startswith(f"the entry point {entry} of the package my_models")
    assert message in str(caught.value)


def test_a_name_that_is_taken_is_refused(install: Install, example: dict[str, str]) -> None:
    install(card=example["card"].replace("tiny_c3d", "r3d_18"))
    with pytest.raises(models.InvalidModelError, match="adds a model called 'r3d_18', which exists already"):
        models.list_models()


def test_two_packages_with_tuples_of_cards(install: Install, example: dict[str, str]) -> None:
    install()
    more = example["card"].replace("tiny_c3d", "tiny_c3d_two") + "\nCARDS = (TINY,)\n"
    install(package="my_others", card=more, entry="others = my_others.cards:CARDS")
    assert {"tiny_c3d", "tiny_c3d_two"} <= set(models.list_models())

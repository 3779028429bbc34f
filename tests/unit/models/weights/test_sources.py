"""Sources of weights: which texts are one, and which file of a machine they mean."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from models import WeightsError, WeightsUnavailableError, check_source, find_weights
from models.weights.digest import sha256_of


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("/data/k400.pth", "must be named relative to a folder of weights"),
        ("~/k400.pth", "must be named relative to a folder of weights"),
        ("../k400.pth", "outside the folders of weights"),
        ("a/../../k400.pth", "outside the folders of weights"),
        (".", "outside the folders of weights"),
        ("timm:resnet50", "is not a source of weights"),
        ("https://example.org/k400.pth", "is not a source of weights"),
        ("torchvision:", "is not a source of weights"),
        ("hf:bert", "names no repository"),
        ("hf:../x/model.pt", "names no repository"),
        ("hf:a/b/../../c.pt", "names no file of a repository"),
        ("torchvision:r3d", "torchvision publishes no weights 'r3d'; did you mean 's3d' or 'r3d_18'"),
        ("torchvision:R3D_18_Weights.KINETICS", "did you mean 'R3D_18_Weights.KINETICS400_V1'"),
    ],
)
def test_what_is_no_source_is_refused(text: str, says: str) -> None:
    with pytest.raises(WeightsError, match=says) as caught:
        check_source(text)
    assert not isinstance(caught.value, WeightsUnavailableError)


def test_the_first_folder_that_has_the_file_counts(tmp_path: Path) -> None:
    roots = [tmp_path / "one", tmp_path / "two"]
    for root in roots:
        (root / "r50").mkdir(parents=True)
    (roots[1] / "r50" / "k400.pth").write_bytes(b"two")
    assert find_weights("r50/k400.pth", roots) == roots[1] / "r50" / "k400.pth"
    (roots[0] / "r50" / "k400.pth").write_bytes(b"one")
    assert find_weights("r50/k400.pth", roots) == roots[0] / "r50" / "k400.pth"


def test_a_missing_file_is_a_matter_of_the_machine(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailableError, match=rf"no weights file 'k400.pth' in {tmp_path}: put it there"):
        find_weights("k400.pth", [tmp_path])
    with pytest.raises(WeightsUnavailableError, match="no folder of weights is set"):
        find_weights("k400.pth", [])


def test_a_link_out_of_the_folder_is_refused_and_one_within_is_not(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.pth").write_bytes(b"secret")
    (root / "k400.pth").write_bytes(b"weights")
    (root / "out.pth").symlink_to(tmp_path / "secret.pth")
    (root / "folder").symlink_to(tmp_path)
    (root / "in.pth").symlink_to(root / "k400.pth")
    for name in ("out.pth", "folder/secret.pth"):
        with pytest.raises(WeightsUnavailableError, match="leads out of"):
            find_weights(name, [root])
    assert find_weights("in.pth", [root]).read_bytes() == b"weights"
    linked = tmp_path / "linked"
    linked.symlink_to(root)
    assert find_weights("k400.pth", [linked]).read_bytes() == b"weights"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "r50").mkdir()
    with pytest.raises(WeightsUnavailableError, match="is not a file"):
        find_weights("r50", [tmp_path])


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "k400.pth").write_bytes(b"abc")
    assert sha256_of(tmp_path / "k400.pth") == hashlib.sha256(b"abc").hexdigest()


def test_a_file_that_may_not_be_read_is_a_matter_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "k400.pth").write_bytes(b"weights")
    monkeypatch.setattr(os, "access", lambda *_: False)  # whoever runs the tests may read everything
    with pytest.raises(
        WeightsUnavailableError, match=r"k400\.pth of this machine cannot be read \(Permission denied\)"
    ):
        find_weights("k400.pth", [tmp_path])


def test_a_name_that_no_file_can_have_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailableError, match=r"cannot be read \(File name too long"):
        find_weights("a" * 300, [tmp_path])

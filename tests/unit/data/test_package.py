"""The package as it is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

import data


def test_importing_loads_neither_torch_nor_ffmpeg_nor_numpy() -> None:
    code = "import sys, data; print([m for m in ('torch', 'av', 'numpy') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize("name", [name for name in data.__all__ if not name.isupper()])
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(data, name).__name__ == name


@pytest.mark.parametrize("name", [name for name in data.__all__ if name.isupper()])
def test_every_public_constant_can_be_imported(name: str) -> None:
    assert getattr(data, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = data.nothing

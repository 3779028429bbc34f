"""The wheel: what is in it, and that its commands run from any folder of a fresh environment."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from hpo.installation import PACKAGES

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # hatchling itself rather than pip: no build environment to download.
    build = f"import os; os.chdir({str(CHECKOUT)!r}); from hatchling.build import build_wheel as b; b({str(folder)!r})"
    subprocess.run([sys.executable, "-c", build], check=True, capture_output=True)
    (found,) = folder.glob("video_hpo-*.whl")
    return found


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with the wheel; the libraries are borrowed from the one that runs the tests."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    ours = sysconfig.get_path("purelib")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    install = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install"]
    subprocess.run([*install, "--no-deps", "--no-index", "--quiet", str(wheel)], check=True, capture_output=True)
    # A plain path line, not the .pth files within: the editable install of the checkout must stay invisible.
    (packages / "borrowed.pth").write_text(ours + "\n")
    return folder


def test_it_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == set(PACKAGES)
    for needed in ("hpo/store/lifecycle.sql", "hpo/store/migrations/env.py", *(f"{p}/py.typed" for p in PACKAGES)):
        assert needed in names


def test_it_holds_every_file_of_the_packages(wheel: Path) -> None:
    """SQL, templates and `py.typed` as well as modules, in whatever folder they are."""
    files = {
        str(file.relative_to(CHECKOUT))
        for package in PACKAGES
        for file in (CHECKOUT / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert {Path(file).suffix for file in files} >= {".py", ".sql", ".typed"}
    assert {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name} == files


def test_its_names_belong_to_the_distribution(environment: Path, tmp_path: Path) -> None:
    code = f"""
import importlib.metadata as metadata
owners = metadata.packages_distributions()
for name in {PACKAGES!r}:
    module = __import__(name)
    assert module.__file__.startswith({str(environment)!r}), module.__file__
    assert set(owners[name]) == {{"video-hpo"}}, owners[name]
"""
    subprocess.run([environment / "bin" / "python", "-c", code], cwd=tmp_path, check=True)


@pytest.mark.parametrize("command", ["hpo", "hpo-worker"])
def test_its_commands_run_from_another_folder(environment: Path, tmp_path: Path, command: str) -> None:
    done = subprocess.run(
        [environment / "bin" / command, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout

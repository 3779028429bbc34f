"""Which package may import which, and what starting up may load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hpo.errors import SetupError
from hpo.installation import PACKAGES, check_installation

CHECKOUT = Path(__file__).resolve().parents[2]


def _run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


def test_the_arrows_between_the_packages_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "module", ["hpo", "hpo.cli", "hpo.spec", "hpo.store", "api.app", "models", "data", "workers.cli"]
)
def test_starting_up_loads_neither_torch_nor_ax(module: str, tmp_path: Path) -> None:
    heavy = "{'torch', 'ax', 'botorch', 'torchvision'} & set(sys.modules)"
    done = _run(f"import sys, {module}; print(sorted({heavy}))", tmp_path)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("module", ["hpo", "hpo.cli"])
def test_the_command_starts_without_what_only_some_commands_need(module: str, tmp_path: Path) -> None:
    slow = "{'numpy', 'sqlalchemy', 'alembic', 'pydantic', 'httpx', 'yaml', 'hpo.spec'} & set(sys.modules)"
    done = _run(f"import sys, {module}; print(sorted({slow}))", tmp_path)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_the_packages_stand_in_one_folder() -> None:
    check_installation()


@pytest.mark.parametrize("command", ["hpo.cli.main(['models'])", "workers.cli.main(['--cpu'])"])
def test_a_package_that_shadows_ours_is_named(command: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "__init__.py").touch()
    module = command.partition(".main")[0]
    done = _run(f"import sys; sys.path.insert(0, '.'); import {module}; {command}", tmp_path)
    assert done.returncode == 1
    assert f"'data' is imported from {tmp_path}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.installation.find_spec", lambda name: None)
    with pytest.raises(SetupError, match=f"{PACKAGES[0]!r} cannot be found"):
        check_installation()

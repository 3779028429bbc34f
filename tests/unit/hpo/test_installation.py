"""Our processes import nothing from the folder in which they were started."""

from __future__ import annotations

import ast
import os
import subprocess
from pathlib import Path

import pytest

from hpo.installation import PACKAGES, SAFE_PATH, child_environment, python_command

ROOT = Path(__file__).resolve().parents[3]
HOSTILE = (*(f"{name}/__init__.py" for name in PACKAGES), "sitecustomize.py", "usercustomize.py", "json.py", "torch.py")
PROGRAM = """
import json, subprocess, sys
from importlib.util import find_spec
print(*(find_spec(name).origin for name in sys.argv[1:]))
child = [sys.executable, "-c", "import json, models; print(models.__file__)"]
print(subprocess.run(child, capture_output=True, text=True, check=True).stdout)
"""


def test_a_hostile_folder_is_not_imported_from(tmp_path: Path) -> None:
    for name in HOSTILE:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"import os; os.mkdir({str(tmp_path / 'sprung')!r})")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | SAFE_PATH
    said = subprocess.run(
        python_command(PROGRAM, *PACKAGES), cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    assert said == [*(str(ROOT / name / "__init__.py") for name in PACKAGES), str(ROOT / "models" / "__init__.py")]
    assert not (tmp_path / "sprung").exists()


def test_the_command_alone_keeps_the_folder_out(tmp_path: Path) -> None:
    """Whoever forgets the environment still runs nothing of the folder."""
    (tmp_path / "models.py").write_text("")
    outside = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", *SAFE_PATH}}
    command = python_command("from importlib.util import find_spec; print(find_spec('models').origin)")
    said = subprocess.run(command, cwd=tmp_path, env=outside, capture_output=True, text=True, check=True).stdout
    assert Path(said.strip()) == ROOT / "models" / "__init__.py"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_process_is_started_with_python_in_another_way(package: str) -> None:
    """The interpreter is named where commands are built, and for a search.

    The search of a pattern runs with `-I`, which takes nothing from the folder, the user or the environment.
    """
    users = {
        str(path.relative_to(ROOT))
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "executable"
    }
    assert users == {
        "hpo": {"hpo/installation.py"},
        "data": {"data/index/groups.py"},
    }.get(package, set())


@pytest.mark.parametrize("package", PACKAGES)
def test_no_process_gets_our_whole_environment(package: str) -> None:
    """Whoever starts one says what it gets: `child_environment`, or the few variables that it needs."""
    calls = [
        (str(path.relative_to(ROOT)), node)
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if isinstance(node.func.value, ast.Name) and node.func.value.id in ("subprocess", "multiprocessing")
        if node.func.attr != "TimeoutExpired"
    ]
    for path, call in calls:
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert "env" in given, f"{path}:{call.lineno} starts a process with our whole environment"
        assert "os.environ," not in given["env"], f"{path}:{call.lineno}"


def test_no_secret_is_in_the_environment_of_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HPO_SECRET", "HPO_TOKEN", "DATABASE_URL", "HPO_HOME"):
        monkeypatch.setenv(name, "x")
    assert not {"HPO_SECRET", "HPO_TOKEN", "DATABASE_URL"} & child_environment().keys()
    assert child_environment()["HPO_HOME"] == "x"
    assert child_environment().items() >= SAFE_PATH.items()

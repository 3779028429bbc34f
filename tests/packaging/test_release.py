"""The release script on a small repository of its own: what it refuses, and what a release leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / ".ci" / "release.py"
PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "small"
version = "0.1.0"

[tool.hatch.build.targets.wheel]
packages = ["small"]
"""
CHANGELOG = "# Changelog\n\n## [0.2.0] - 2026-11-28\n\n- More.\n\n## [0.1.0] - 2026-11-21\n\n- All.\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A committed project of one package whose `make lint` passes."""
    for name, text in {
        "pyproject.toml": PROJECT,
        "CHANGELOG.md": CHANGELOG,
        "Makefile": "lint:\n\tgrep -q version pyproject.toml\n",
        ".gitignore": "dist/\n",
        "small/__init__.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    return tmp_path


def environment() -> dict[str, str]:
    """Return this process's, with an author, without the machine's settings of git and without the flags of a make."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "MAKE"))}
    person = {"NAME": "A Person", "EMAIL": "person@example.org"}
    authors = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in person.items()}
    return {**ours, **authors, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}


def git(folder: Path, *arguments: str) -> str:
    command = ["git", *arguments]  # wherever the machine has it
    return subprocess.run(
        command, cwd=folder, env=environment(), check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Change it")


def release(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments], cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )


def test_a_release_is_a_commit_with_a_tag_and_two_files(repository: Path) -> None:
    done = release(repository, "0.2.0")
    assert done.returncode == 0, done.stderr
    assert git(repository, "log", "--format=%s", "-1") == "Release 0.2.0"
    assert git(repository, "diff", "HEAD~", "--unified=0").splitlines()[-2:] == [
        '-version = "0.1.0"',
        '+version = "0.2.0"',
    ]
    assert git(repository, "rev-parse", "v0.2.0^{commit}") == git(repository, "rev-parse", "HEAD")
    assert git(repository, "cat-file", "-t", "v0.2.0") == "tag"
    assert git(repository, "status", "--porcelain") == ""
    built = {file.name for file in (repository / "dist").iterdir()}
    assert built == {"small-0.2.0.tar.gz", "small-0.2.0-py2.py3-none-any.whl"}


def test_a_version_that_is_set_already_is_only_tagged(repository: Path) -> None:
    before = git(repository, "rev-parse", "HEAD")
    assert release(repository, "0.1.0").returncode == 0
    assert git(repository, "rev-parse", "HEAD", "v0.1.0^{commit}").split() == [before, before]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give the version: make release VERSION=0.2.0"),
        ([""], "'' is not a version"),
        (["1.0"], "'1.0' is not a version"),
        (["v0.2.0"], "'v0.2.0' is not a version"),
        (["0.3.0"], "CHANGELOG.md says nothing about 0.3.0"),
    ],
)
def test_a_mistake_is_one_sentence(repository: Path, arguments: list[str], message: str) -> None:
    done = release(repository, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("section", ["## [0.2.0]\n\n- More.\n", "## [0.2.0] - 2026-11-28\n\n## [0.1.0] - 2026-11-21\n"])
def test_a_section_needs_a_date_and_a_text(repository: Path, section: str) -> None:
    (repository / "CHANGELOG.md").write_text(section)
    commit(repository)
    assert "CHANGELOG.md says nothing about 0.2.0" in release(repository, "0.2.0").stderr


def test_changes_that_are_not_committed_stop_it(repository: Path) -> None:
    (repository / "small" / "new.py").touch()
    assert "the working tree has changes" in release(repository, "0.2.0").stderr
    assert git(repository, "tag") == ""


def test_a_version_is_released_once(repository: Path) -> None:
    git(repository, "tag", "v0.2.0")
    assert "the tag v0.2.0 exists" in release(repository, "0.2.0").stderr


def test_a_commit_that_is_refused_leaves_everything_as_it_was(repository: Path) -> None:
    hook = repository / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    before = git(repository, "rev-parse", "HEAD")
    done = release(repository, "0.2.0")
    assert (done.returncode, "git commit" in done.stderr, "Traceback" in done.stderr) == (1, True, False)
    assert git(repository, "rev-parse", "HEAD") == before
    assert git(repository, "status", "--porcelain") == git(repository, "tag") == ""


@pytest.mark.parametrize(
    ("name", "text", "step"),
    [
        ("Makefile", "lint:\n\tfalse\n", "make lint failed"),
        ("pyproject.toml", PROJECT + "\n[tool.hatch.build]\nx", "build failed"),
    ],
)
def test_a_step_that_fails_leaves_everything_as_it_was(repository: Path, name: str, text: str, step: str) -> None:
    (repository / name).write_text(text)
    commit(repository)
    before = git(repository, "rev-parse", "HEAD")
    done = release(repository, "0.2.0")
    assert done.returncode == 1
    assert step in done.stderr
    assert git(repository, "rev-parse", "HEAD") == before
    assert git(repository, "status", "--porcelain") == git(repository, "tag") == ""

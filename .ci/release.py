"""Make a release: `make release VERSION=0.2.0`. It commits and tags; pushing is left to you.

The working tree must be clean and CHANGELOG.md must have a dated section for the version. The version goes into
pyproject.toml, `make lint` must pass, sdist and wheel are built into dist/, then the commit gets the tag. When a step
before the commit fails, or the commit itself, pyproject.toml is as it was.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def main(version: str) -> None:
    """Release the checkout in the working directory as `version`.

    Raises:
        SystemExit: something is not ready; the message says what and where.
    """
    check(version)
    project = Path("pyproject.toml")
    before = project.read_text()
    project.write_text(with_version(before, version))
    try:
        run("make", "lint")
        run(sys.executable, "-m", "hatchling", "build")
        if project.read_text() != before:
            run("git", "commit", "--quiet", "--message", f"Release {version}", "pyproject.toml")
    except subprocess.CalledProcessError as error:
        project.write_text(before)
        sys.exit(f"{' '.join(error.cmd)} failed; nothing was committed and pyproject.toml is as it was")
    run("git", "tag", "--annotate", f"v{version}", "--message", f"video-hpo {version}")
    print(f"v{version} is tagged; publish it with: git push --follow-tags")


def check(version: str) -> None:
    """Exit with one sentence unless the checkout can become `version`."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        sys.exit(f"{version!r} is not a version: give three numbers, as in VERSION=0.2.0")
    if output("git", "status", "--porcelain"):
        sys.exit("the working tree has changes: commit them first")
    if output("git", "tag", "--list", f"v{version}"):
        sys.exit(f"the tag v{version} exists: choose another version")
    if not notes(Path("CHANGELOG.md").read_text(), version):
        sys.exit(f"CHANGELOG.md says nothing about {version}: write a section '## [{version}] - YYYY-MM-DD'")


def notes(changelog: str, version: str) -> str:
    """Return the text of the dated section of `version`; nothing where there is none."""
    head = rf"^## \[{re.escape(version)}\] - \d{{4}}-\d{{2}}-\d{{2}}\n"
    found = re.search(head + r"(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    return found[1].strip() if found else ""


def with_version(project: str, version: str) -> str:
    """Return pyproject.toml with another version of the project."""
    changed, count = re.subn(r'^version = "[^"]*"$', f'version = "{version}"', project, flags=re.MULTILINE)
    if count != 1:
        sys.exit('pyproject.toml must have exactly one line: version = "..."')
    return changed


def output(*command: str) -> str:
    """Return what a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def run(*command: str) -> None:
    """Run a command that must succeed; it prints for itself."""
    subprocess.run(command, check=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give the version: make release VERSION=0.2.0")
    main(sys.argv[1])

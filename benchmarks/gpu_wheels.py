"""Collect what a machine with a GPU and without a registry needs for `benchmarks/gpu.py`: `make gpu-wheels`.

That machine has Python 3.12, torch, torchvision, botorch, opencv-headless, httpx, pandas and timm, with all that these
require. What the project requires beside them is downloaded as wheels for it, in the versions of constraints.txt, with
the tree as it is committed, and a wheel of that, for the commands. PyAV and OpenCV's contributions are left out: they
are too large, and what is measured decodes no video.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PYTHON: Final = "3.12"
PLATFORMS: Final = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
THERE: Final = ("torch", "torchvision", "botorch", "gpytorch", "opencv-python-headless", "httpx", "pandas", "timm")
LEFT_OUT: Final = ("av", "opencv-contrib-python-headless", "ax-platform", "plotly", "uvloop")
"""Libraries of video, the optimizer that is not measured, plots, and what makes the service faster."""
PEERS: Final = ("parameterized", "yacs", "portalocker", "tabulate", "termcolor")
SOURCES: Final = ("pytorchvideo", "fvcore", "iopath")
"""The plain loop of SlowFast, to compare with ours. They have no wheels: those are made here, of Python alone."""
MOST_BYTES: Final = 64 * 10**6


def needed() -> list[str]:
    """Return the names of the packages that are carried."""
    there = set(_closure(THERE))
    return sorted({*_closure(("video-hpo",)), *PEERS} - there - set(LEFT_OUT) - {"video-hpo"})


def _closure(names: tuple[str, ...]) -> Iterator[str]:
    """Yield packages and all that they require, as they are installed here."""
    seen: set[str] = set()
    waiting = [canonicalize_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in seen or name in LEFT_OUT:
            continue
        seen.add(name)
        yield name
        try:
            found = requires(name) or []
        except PackageNotFoundError:  # it is there on the other machine alone
            continue
        for text in found:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": "", "python_version": PYTHON}):
                waiting.append(canonicalize_name(requirement.name))


def pinned(names: list[str], constraints: str) -> list[str]:
    """Return requirements with the versions of the text of a constraints file; those without one stay open."""
    versions = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", constraints, re.MULTILINE))
    known = {str(canonicalize_name(name)): version for name, version in versions.items()}
    return [f"{name}=={known[name]}" if name in known else name for name in names]


def problem_with(folder: Path) -> str | None:
    """Return by how much a folder is too large to be carried, with its largest files; None if it is not."""
    sizes = sorted(((file.stat().st_size, file.name) for file in folder.rglob("*") if file.is_file()), reverse=True)
    whole = sum(size for size, _ in sizes)
    if whole <= MOST_BYTES:
        return None
    largest = ", ".join(f"{name} ({size / 1e6:.1f} MB)" for size, name in sizes[:5])
    return f"{folder} has {whole / 1e6:.1f} MB, and {MOST_BYTES / 1e6:.0f} MB can be carried; the largest are {largest}"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_wheels", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("build/gpu"))
    folder: Path = parser.parse_args().folder
    wheels = folder / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    for old in wheels.iterdir():
        old.unlink()
    archive = ["git", "archive", "--format=tar.gz", "-o", str(folder / "tree.tar.gz"), "HEAD", ":!tests", ":!docs"]
    subprocess.run(archive, check=True)
    constraints = Path("constraints.txt").read_text()
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    download = [*pip, "download", "--no-deps", "--only-binary=:all:", "--python-version", PYTHON, *platforms]
    subprocess.run([*download, "-d", str(wheels), *pinned(needed(), constraints)], check=True)
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(wheels), *pinned(list(SOURCES), constraints)], check=True)
    with tempfile.TemporaryDirectory() as tree:
        shutil.unpack_archive(folder / "tree.tar.gz", tree, filter="data")
        subprocess.run([*pip, "wheel", "--no-deps", "-w", str(wheels), tree], check=True)
    if (problem := problem_with(folder)) is not None:
        sys.exit(problem)
    whole = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder}: {len(list(wheels.iterdir()))} wheels and the tree, {whole / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

"""The container files name commands, folders and variables that exist."""

from __future__ import annotations

import tomllib
from pathlib import Path

import yaml

from hpo.installation import PACKAGES

CHECKOUT = Path(__file__).resolve().parents[2]


def test_the_image_copies_every_package() -> None:
    lines = (CHECKOUT / "docker" / "Dockerfile").read_text().splitlines()
    copied = {line.split()[1] for line in lines if line.startswith("COPY")}
    assert set(PACKAGES) <= copied
    assert all((CHECKOUT / name).exists() for name in (*PACKAGES, "pyproject.toml", "constraints.txt"))


def test_the_services_run_commands_of_ours() -> None:
    scripts = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["scripts"]
    services = yaml.safe_load((CHECKOUT / "docker" / "compose.yaml").read_text())["services"]
    assert services["worker"]["command"][0] in scripts
    for name in ("service", "worker"):
        assert (CHECKOUT / "docker" / services[name]["build"]["dockerfile"].removeprefix("docker/")).is_file()

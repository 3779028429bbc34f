"""The container files name commands, options, folders and versions that exist, and give nobody more than they need."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sysconfig
import tomllib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.core import TyperGroup
from typer.main import get_command

from hpo.cli.app import whole
from hpo.installation import PACKAGES
from workers.cli import app as worker_app

CHECKOUT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((CHECKOUT / "docker" / "compose.yaml").read_text())
TLS: dict[str, Any] = yaml.safe_load((CHECKOUT / "docker" / "compose.tls.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
REQUIREMENTS = ("requirements.txt", "requirements-api.txt")
DOCKERFILE = (CHECKOUT / "docker" / "Dockerfile").read_text().splitlines()


def _volumes(service: str) -> dict[str, str]:
    """Return where a service mounts each volume."""
    return dict(entry.split(":")[:2] for entry in SERVICES[service]["volumes"] if not entry.startswith("$"))


def test_the_image_copies_every_package() -> None:
    copies = [line.split()[1:-1] for line in DOCKERFILE if line.startswith("COPY") and "--from" not in line]
    copied = {word for words in copies for word in words}
    assert set(PACKAGES) <= copied
    assert all((CHECKOUT / name).exists() for name in copied)
    sent = (CHECKOUT / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    assert sent[1] == "*"
    assert {line.removeprefix("!") for line in sent if line.startswith("!")} == copied


def unknown_options(words: Sequence[str]) -> set[str]:
    """Return what of a command line of ours are no options that it has."""
    scripts = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["scripts"]
    program, *arguments = words
    assert program in scripts
    command = whole() if program == "hpo" else get_command(worker_app)
    if isinstance(command, TyperGroup):
        command = command.commands[arguments.pop(0)]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return {argument.partition("=")[0] for argument in arguments} - known


@pytest.mark.parametrize("service", [SERVICES["service"], SERVICES["worker"], TLS["services"]["service"]])
def test_the_services_run_commands_and_options_of_ours(service: dict[str, Any]) -> None:
    assert unknown_options(service["command"]) == set()
    assert (CHECKOUT / SERVICES["service"]["build"]["dockerfile"]).is_file()


@pytest.mark.parametrize("compose", [COMPOSE, TLS])
def test_compose_files_are_valid(compose: dict[str, Any]) -> None:
    schema = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.validate(compose, json.loads(schema.read_text()))


def test_the_linter_finds_nothing_in_the_dockerfile() -> None:
    linter = shutil.which("hadolint", path=sysconfig.get_path("scripts"))
    assert linter is not None, "make install brings it"
    done = subprocess.run(
        [linter, str(CHECKOUT / "docker" / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_proxy_with_tls_is_the_one_that_the_service_believes() -> None:
    caddy, service = TLS["services"]["caddy"], TLS["services"]["service"]
    assert f"--trusted-proxy={caddy['networks']['default']['ipv4_address']}" in service["command"]
    assert set(SERVICES["service"]["command"]) < set(service["command"])
    assert "reverse_proxy service:8000" in (CHECKOUT / "docker" / "Caddyfile").read_text()


def test_the_worker_has_a_token_of_its_own_and_no_other_secret() -> None:
    (file,) = (word.partition("=")[2] for word in SERVICES["service"]["command"] if "--worker-token-file" in word)
    assert f"--token-file={file}" in SERVICES["worker"]["command"]
    assert str(Path(file).parent) == _volumes("worker")["worker-token"] == _volumes("service")["worker-token"]
    assert "state" not in _volumes("worker"), "the admin's token and the key of all tokens are there"
    assert "secrets" not in SERVICES["worker"]
    assert SERVICES["worker"]["environment"] == {"HPO_HOME": _volumes("worker")["worker"]}


def test_no_secret_is_in_an_environment() -> None:
    for service in SERVICES.values():
        for name, value in service["environment"].items():
            assert name.endswith("_FILE") or not re.search(r"PASSWORD|SECRET|TOKEN", name)
            assert not re.search(r"//[^/]*:[^/]*@", value), name
    (secret,) = COMPOSE["secrets"]
    assert SERVICES["postgres"]["environment"]["POSTGRES_PASSWORD_FILE"] == f"/run/secrets/{secret}"
    assert SERVICES["service"]["environment"]["DATABASE_PASSWORD_FILE"] == f"/run/secrets/{secret}"
    assert "docker/secrets/" in (CHECKOUT / ".gitignore").read_text().splitlines()


def test_the_volumes_belong_to_the_user_of_the_image() -> None:
    (made,) = (line for line in DOCKERFILE if "install -d -o hpo -g hpo -m 0700" in line)
    folders = {place for service in ("service", "worker") for place in _volumes(service).values()}
    assert folders == set(re.findall(r"/home/\S+", made))
    assert "USER 1000" in DOCKERFILE
    assert any("useradd" in line and "--uid 1000 hpo" in line for line in DOCKERFILE)


@pytest.mark.parametrize("name", [*SERVICES, *TLS["services"]])
def test_every_container_comes_back_when_its_host_does(name: str) -> None:
    assert {**TLS["services"], **SERVICES}[name]["restart"] == "unless-stopped"


def test_the_port_is_published_on_the_host_alone() -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES["service"]["ports"])


DIGESTS = CHECKOUT / "docker" / "digests.sh"


def _digests(tmp_path: Path, crane: str | None) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Run the script on a copy of its folder with a `crane` that does as is said, and no docker."""
    shutil.copytree(DIGESTS.parent, tmp_path / "docker", ignore=shutil.ignore_patterns("secrets", ".env"))
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "sed", "sort", "tee", "dirname"):
        (programs / name).symlink_to(str(shutil.which(name)))
    if crane is not None:
        (programs / "crane").write_text(f"#!/bin/sh\n{crane}\n")
        (programs / "crane").chmod(0o755)
    command = [str(programs / "sh"), str(tmp_path / "docker" / "digests.sh")]
    done = subprocess.run(command, env={"PATH": str(programs)}, capture_output=True, text=True, check=False)
    return done, tmp_path / "docker" / ".env"


def _images() -> dict[str, str]:
    """Return what the compose files say of each image, by the variable that pins it."""
    named = {"POSTGRES_IMAGE": SERVICES["postgres"]["image"], "CADDY_IMAGE": TLS["services"]["caddy"]["image"]}
    return {**named, **COMPOSE["x-ours"]["build"]["args"]}


def test_every_image_of_the_compose_file_is_pinned_by_the_script(tmp_path: Path) -> None:
    done, written = _digests(tmp_path, f'echo "$1 $2" >> {tmp_path}/asked; echo sha256:{"0" * 64}')
    assert done.returncode == 0, done.stderr
    images = _images()
    tags = {name: value.partition(":-")[2].removesuffix("}") for name, value in images.items()}
    assert dict(line.split("=") for line in written.read_text().splitlines()[1:]) == {
        name: f"{tag}@sha256:{'0' * 64}" for name, tag in tags.items()
    }
    assert sorted((tmp_path / "asked").read_text().splitlines()) == sorted(f"digest {tag}" for tag in tags.values())
    assert f"ARG PYTHON_IMAGE={tags['PYTHON_IMAGE']}" in DOCKERFILE


def test_every_image_of_the_compose_file_is_pinned() -> None:
    images = _images()
    pins = dict(line.split("=", 1) for line in (DIGESTS.parent / ".env").read_text().splitlines()[1:])
    assert pins.keys() == images.keys()
    for name, image in images.items():
        tag, _, digest = pins[name].partition("@")
        assert image == f"${{{name}:-{tag}}}"
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", digest)


@pytest.mark.parametrize("crane", [None, "exit 1", "echo none"])
def test_nothing_is_pinned_to_what_nobody_has_said(tmp_path: Path, crane: str | None) -> None:
    done, written = _digests(tmp_path, crane)
    assert (done.returncode, written.exists()) == (1, False)


@pytest.mark.parametrize("file", REQUIREMENTS)
def test_packages_are_installed_by_hash_in_the_tested_versions(file: str) -> None:
    installs = [line for line in DOCKERFILE if "pip install" in line]
    assert all("--require-hashes" in line or "--no-deps --no-build-isolation ." in line for line in installs)
    pins = (CHECKOUT / "constraints.txt").read_text()
    tested = dict(re.findall(r"^([\w.-]+)==(\S+)$", pins, re.MULTILINE))
    wanted = (CHECKOUT / "docker" / file).read_text()
    entries = re.findall(r"^([\w.-]+)==(\S+) \\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", wanted, re.MULTILINE)
    assert len(entries) == len(re.findall(r"^[\w.-]+==", wanted, re.MULTILINE))
    versions = {_plain(name): version for name, version in tested.items()}
    assert {name: version for name, version, _ in entries} == {name: versions[_plain(name)] for name, *_ in entries}
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    extras = ["otel"] if file == "requirements-api.txt" else ["otel", "s3", "hub"]
    wanted_of = [
        *project["dependencies"],
        *(line for extra in extras for line in project["optional-dependencies"][extra]),
    ]
    needed = {_plain(re.split(r"[<>=]", line)[0]) for line in wanted_of} | {"hatchling"}
    installed = {_plain(name) for name, *_ in entries}
    left_out = {"torch", "torchvision", "botorch", "ax-platform"} if file == "requirements-api.txt" else set()
    assert needed - installed == left_out
    assert not left_out or not any(name.startswith(("nvidia-", "cuda-", "triton")) for name in installed)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()

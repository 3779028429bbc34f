"""Published weights: kept in a folder that processes share, verified, downloaded from a server on this machine."""

from __future__ import annotations

import fcntl
import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath

import huggingface_hub
import pytest
import torch.hub

from models import WeightsError, WeightsUnavailableError, find_weights
from models.weights import downloads
from models.weights.downloads import hub_file, torchvision_file

CONTENT = b"published weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = f"r3d_18-{SHA256[:8]}.pth"
CLOSED = "http://127.0.0.1:9"
"""The port of a service that nobody runs."""


class Server(ThreadingHTTPServer):
    """Answers with what is published, and remembers what was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.published: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self.asked: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        self.server.asked.append((self.command, self.path))
        body = self.server.published.get(self.path)
        self.send_response(404 if body is None else 200)
        if body is None:
            known = any(path.startswith("/".join(self.path.split("/")[:3]) + "/") for path in self.server.published)
            self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
        else:
            tag = self.server.tags.get(self.path, hashlib.sha256(body).hexdigest())
            self.send_header("ETag", f'"{tag}"')
            self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        if with_body and body is not None:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def publish_for_torchvision(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr(downloads, "torchvision_url", lambda _: f"{url}/models/{NAME}")


@pytest.fixture
def hub(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server as Hugging Face."""
    for name in ("hf_hub_download", "hf_hub_url", "get_hf_file_metadata"):
        monkeypatch.setattr(huggingface_hub, name, partial(getattr(huggingface_hub, name), endpoint=server.url))
    return server


def file_of(server: Server, name: str, content: bytes = CONTENT) -> str:
    path = f"/owner/net/resolve/main/{name}"
    server.published[path] = content
    return path


def test_torchvision_weights_are_downloaded_once(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_for_torchvision(monkeypatch, server.url)
    server.published[f"/models/{NAME}"] = CONTENT
    for _ in range(2):
        path = find_weights("torchvision:r3d_18", [], downloads=tmp_path)
        assert path == tmp_path / "torchvision" / NAME
        assert path.read_bytes() == CONTENT
    assert server.asked == [("GET", f"/models/{NAME}")]
    assert [each.name for each in path.parent.iterdir() if not each.name.endswith(".lock")] == [NAME]


def test_other_bytes_than_torchvision_names_are_not_kept(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_for_torchvision(monkeypatch, server.url)
    server.published[f"/models/{NAME}"] = b"a page of a proxy"
    with pytest.raises(WeightsUnavailableError, match="invalid hash value"):
        torchvision_file("r3d_18", tmp_path)
    assert [each.name for each in tmp_path.iterdir() if not each.name.endswith(".lock")] == []
    (tmp_path / NAME).write_bytes(b"damaged")
    with pytest.raises(WeightsUnavailableError, match=r"is not the one that torchvision publishes: delete it"):
        torchvision_file("r3d_18", tmp_path)


def test_without_a_network_a_sentence_says_which_file_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_for_torchvision(monkeypatch, CLOSED)
    said = rf"torchvision:r3d_18 cannot be downloaded here .*put the file {NAME} of {CLOSED}/models/{NAME} into "
    with pytest.raises(WeightsUnavailableError, match=said + str(tmp_path)):
        torchvision_file("r3d_18", tmp_path)
    (tmp_path / NAME).write_bytes(CONTENT)
    assert torchvision_file("r3d_18", tmp_path).read_bytes() == CONTENT


def test_a_file_in_a_folder_that_cannot_be_written_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_for_torchvision(monkeypatch, CLOSED)
    (tmp_path / NAME).write_bytes(CONTENT)
    monkeypatch.setattr(fcntl, "flock", None)  # no lock is needed for a file that is there; root may write everywhere
    assert torchvision_file("r3d_18", tmp_path) == tmp_path / NAME
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_a_process_waits_for_another_that_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_for_torchvision(monkeypatch, CLOSED)
    found: list[Path] = []
    other = threading.Thread(target=lambda: found.append(torchvision_file("r3d_18", tmp_path)))
    calls: list[str] = []

    def download(_: str, target: str, *__: object, **___: object) -> None:
        calls.append(target)
        if len(calls) == 1:
            other.start()
            other.join(0.3)  # it cannot end before this one does
            assert found == []
        Path(target).write_bytes(CONTENT)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    path = torchvision_file("r3d_18", tmp_path)
    other.join()
    assert found == [path]
    assert len(calls) == 1


def test_a_file_of_the_hub_is_downloaded_once_under_its_name(tmp_path: Path, hub: Server) -> None:
    path = file_of(hub, "sub/net.safetensors")
    for _ in range(2):
        found = find_weights("hf:owner/net/sub/net.safetensors", [], downloads=tmp_path)
        assert found == tmp_path / "hf" / "owner" / "net" / "sub" / "net.safetensors"
        assert found.read_bytes() == CONTENT
    assert [asked for asked in hub.asked if asked[0] == "GET"] == [("GET", path)]
    assert [each.name for each in found.parent.iterdir() if not each.name.endswith(".lock")] == ["net.safetensors"]


def test_without_a_file_the_hub_is_asked_for_the_usual_names(tmp_path: Path, hub: Server) -> None:
    file_of(hub, "pytorch_model.bin")
    assert hub_file("owner/net", None, tmp_path) == tmp_path / "owner" / "net" / "pytorch_model.bin"


def test_what_the_hub_does_not_have_is_no_matter_of_the_machine(tmp_path: Path, hub: Server) -> None:
    file_of(hub, "README.md")
    with pytest.raises(WeightsError, match=r"owner/net of Hugging Face has no file a\.pth") as no_file:
        hub_file("owner/net", PurePosixPath("a.pth"), tmp_path)
    with pytest.raises(WeightsError, match=r"no repository owner/other") as no_repository:
        hub_file("owner/other", None, tmp_path)
    for caught in (no_file, no_repository):
        assert not isinstance(caught.value, WeightsUnavailableError)


def test_other_bytes_than_the_hub_names_are_not_kept(tmp_path: Path, hub: Server) -> None:
    hub.tags[file_of(hub, "net.bin")] = "f" * 64
    with pytest.raises(WeightsUnavailableError, match="is not the file that the repository names"):
        hub_file("owner/net", PurePosixPath("net.bin"), tmp_path)
    assert not (tmp_path / "owner" / "net" / "net.bin").exists()


def test_without_a_network_files_of_the_hub_can_be_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", partial(huggingface_hub.hf_hub_download, endpoint=CLOSED))
    folder = tmp_path / "owner" / "net"
    with pytest.raises(WeightsUnavailableError, match=rf"put the file model\.safetensors of .* into {folder}"):
        hub_file("owner/net", None, tmp_path)
    (folder / "model.safetensors").write_bytes(CONTENT)
    assert hub_file("owner/net", None, tmp_path) == folder / "model.safetensors"

"""A data set in a bucket of S3, asked for over HTTP by the client that users have."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import s3fs
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from tenacity import wait_none
from typer.testing import CliRunner, Result
from werkzeug.serving import make_server

from data.errors import DatasetNotFoundError, RemoteError
from data.remote import storage
from data.remote.copies import local_root
from data.synthetic.dataset import write_video
from hpo.cli.app import app
from tests.unit.data.encoded import moving


class Bucket:
    """A server of S3 on loopback, whose answers can be made to break off."""

    def __init__(self) -> None:
        self._answer = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.breaks = 0
        """So many of the next files end in the middle."""

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        answer: Iterable[bytes] = self._answer(environ, start)
        is_file = environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"].endswith(".avi")
        if not is_file or self.breaks == 0:
            return answer
        self.breaks -= 1
        content = b"".join(answer)
        return [content[: len(content) // 2]]  # its length was announced; the connection is closed before

    def open_to(self, patched: pytest.MonkeyPatch) -> None:
        """Let clients in this process find the server, as a person lets them: by the environment."""
        for name, value in {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "mine",
            "AWS_SECRET_ACCESS_KEY": "open sesame",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_CONFIG_FILE": "/no settings of this machine",
            "AWS_SHARED_CREDENTIALS_FILE": "/no keys of this machine",
            "NO_PROXY": "127.0.0.1",
        }.items():
            patched.setenv(name, value)
        patched.setattr(storage, "WAIT", wait_none())
        patched.setattr(s3fs.S3FileSystem, "retries", 1)  # its own, which wait

    def require_keys(self) -> None:
        """Refuse who has no valid key, from now on."""
        httpx.post(f"{self.url}/moto-api/reset-auth", content=b"0", trust_env=False).raise_for_status()

    def allow_all(self) -> None:
        httpx.post(f"{self.url}/moto-api/reset-auth", content=b"inf", trust_env=False).raise_for_status()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    """Yield a server whose bucket `sets` holds four videos of two classes, to be read only, in `mine`."""
    bucket = Bucket()
    try:
        with pytest.MonkeyPatch.context() as patched:
            bucket.open_to(patched)
            fill("sets/mine", tmp_path_factory.mktemp("made"))
        yield bucket
    finally:
        bucket.stop()


@pytest.fixture
def bucket(server: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    server.open_to(monkeypatch)
    yield server
    server.breaks = 0
    server.allow_all()


def fill(folder: str, made: Path) -> s3fs.S3FileSystem:
    files = s3fs.S3FileSystem(skip_instance_cache=True)
    files.makedirs(folder.partition("/")[0], exist_ok=True)
    for number, name in enumerate(("Run/v_Run_g01_c01", "Run/v_Run_g02_c01", "Walk/ü b g1", "Walk/ü b g2")):
        write_video(made / "video.avi", moving(3, 16, 24, seed=number))
        files.pipe_file(f"{folder}/{name}.avi", (made / "video.avi").read_bytes())
    return files


def run(home: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--home", str(home), "data", *arguments])


def test_videos_in_a_bucket_are_checked_and_prepared_and_changes_noticed(bucket: Bucket, tmp_path: Path) -> None:
    videos = fill("sets/changing", tmp_path)
    checked = run(tmp_path, "check", "s3://sets/changing")
    assert checked.exit_code == 0, (checked.output, checked.exception)
    assert "4 clips" in checked.output
    prepared = run(tmp_path, "prepare", "s3://sets/changing", "--short-side", "16")
    assert "rgb: 4 clips prepared as raw" in prepared.output, prepared.output
    videos.pipe_file("sets/changing/Run/v_Run_g01_c01.avi", b"")
    videos.rm("sets/changing/Walk/ü b g2.avi")
    changed = run(tmp_path, "check", "s3://sets/changing/")
    assert changed.exit_code == 1
    assert "v_Run_g01_c01.avi" in changed.output
    assert "class_folders: 2 clips" in changed.output


def test_files_that_break_off_are_asked_for_again(bucket: Bucket, tmp_path: Path) -> None:
    bucket.breaks = 3
    folder = local_root("s3://sets/mine", tmp_path)
    assert bucket.breaks == 0
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.avi")}
    there = s3fs.S3FileSystem(skip_instance_cache=True)
    assert found == {name.removeprefix("sets/mine/"): there.cat_file(name) for name in there.find("sets/mine")}


def test_files_that_break_off_each_time_are_named(bucket: Bucket, tmp_path: Path) -> None:
    bucket.breaks = 1000
    with pytest.raises(RemoteError, match=r"^s3://sets/mine/.*\.avi cannot be read, after 4 attempts: .+; check the"):
        local_root("s3://sets/mine", tmp_path)
    assert not list(tmp_path.rglob("remote/*/files/**/*.avi"))


@pytest.mark.parametrize("address", ["s3://nowhere", "s3://nowhere/mine", "s3://sets/other"])
def test_places_that_are_not_there_are_named(address: str, bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match=rf"^there (is no|are no files in) {address}"):
        local_root(address, tmp_path)


def test_a_name_that_is_none_for_a_bucket_is_told_with_the_rule(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match=r"Parameter validation failed: Invalid bucket name .*; check the address"):
        local_root("s3://no_bucket!", tmp_path)


def test_a_wrong_key_is_refused_in_one_sentence_without_the_key(bucket: Bucket, tmp_path: Path) -> None:
    bucket.require_keys()
    refused = run(tmp_path, "check", "s3://sets/mine")
    bucket.allow_all()
    message = str(refused.exception)
    assert message.startswith("s3://sets/mine may not be read: ")
    assert message.endswith("give this machine the credentials of the storage, or let others read it")
    assert "sesame" not in message
    assert "\n" not in message

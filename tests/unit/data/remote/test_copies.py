"""Data sets at an address: copied whole, kept up to date, each failure one sentence, nothing half written."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from tenacity import wait_none

from data import ClipSpec, DatasetSpec, open_dataset
from data.errors import (
    CacheError,
    DatasetError,
    DatasetFormatError,
    DatasetNotFoundError,
    InvalidSpecError,
    RemoteError,
)
from data.remote import copies, storage
from data.remote.copies import local_root
from data.specs.place import is_below
from data.synthetic.dataset import write_video
from tests.unit.data.encoded import moving


class Flaky(MemoryFileSystem):  # type: ignore[misc]  # fsspec is not typed
    """A storage in memory that fails as often as it is told to, also in the middle of a file."""

    protocol = "flaky"
    store: dict[str, Any] = {}  # noqa: RUF012  # as in its base: one storage for all of its objects
    pseudo_dirs = [""]  # noqa: RUF012 - likewise
    failures: list[Exception | int] = []  # noqa: RUF012 - likewise
    """An exception to raise, or the number of bytes after which a file breaks off; one for each call."""
    copied: list[str] = []  # noqa: RUF012 - likewise

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.replace("flaky://", "memory://")))

    def find(self, path: str, *arguments: Any, **options: Any) -> Any:
        self._fail_or_none()
        return super().find(path, *arguments, **options)

    def get_file(self, rpath: str, lpath: str, **options: Any) -> None:
        failure = self._fail_or_none()
        content = self.cat_file(rpath)
        Path(lpath).write_bytes(content if failure is None else content[:failure])
        self.copied.append(rpath.rpartition("/")[2])

    def _fail_or_none(self) -> int | None:
        failure = self.failures.pop(0) if self.failures else None
        if isinstance(failure, Exception):
            raise failure
        return failure


@pytest.fixture(autouse=True)
def flaky(monkeypatch: pytest.MonkeyPatch) -> Flaky:
    monkeypatch.setattr(storage, "WAIT", wait_none())
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    for kept in (Flaky.store, Flaky.failures, Flaky.copied):
        kept.clear()
    Flaky.pseudo_dirs[:] = [""]
    return Flaky()


def fill(files: Flaky, **contents: str) -> None:
    for name, text in contents.items():
        files.pipe_file(f"/set/{name.replace('__', '/')}.txt", text.encode())


def tree(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_what_is_there_is_copied_once(flaky: Flaky, tmp_path: Path) -> None:
    fill(flaky, a="1", deep__b="2")
    flaky.pipe_file("/set/.hidden/c", b"3")
    flaky.pipe_file("/settings/d", b"another folder with a name that begins alike")
    folder = local_root("flaky://set", tmp_path)
    assert tree(folder) == {"a.txt": "1", "deep/b.txt": "2"}
    assert sorted(Flaky.copied) == ["a.txt", "b.txt"]
    assert local_root("flaky://set/", tmp_path) == folder
    assert len(Flaky.copied) == 2


def test_changed_new_and_removed_files_are_noticed(flaky: Flaky, tmp_path: Path) -> None:
    fill(flaky, a="1", deep__b="2", c="3")
    folder = local_root("flaky://set", tmp_path)
    Flaky.copied.clear()
    fill(flaky, a="x", new="4")  # of the same size
    flaky.rm("/set/deep", recursive=True)
    local_root("flaky://set", tmp_path)
    assert tree(folder) == {"a.txt": "x", "c.txt": "3", "new.txt": "4"}
    assert not (folder / "deep").exists()
    assert sorted(Flaky.copied) == ["a.txt", "new.txt"]


def test_a_lost_or_cut_copy_is_made_again(flaky: Flaky, tmp_path: Path) -> None:
    fill(flaky, a="123", b="2")
    folder = local_root("flaky://set", tmp_path)
    (folder / "a.txt").write_text("1")
    (folder / "b.txt").unlink()
    assert tree(local_root("flaky://set", tmp_path)) == {"a.txt": "123", "b.txt": "2"}


def test_a_connection_that_drops_is_tried_again(flaky: Flaky, tmp_path: Path) -> None:
    fill(flaky, a="12345")
    Flaky.failures[:] = [ConnectionResetError("reset by peer"), 2, ConnectionError("again")]
    assert tree(local_root("flaky://set", tmp_path)) == {"a.txt": "12345"}


def test_a_file_that_never_comes_whole_leaves_nothing_half_written(flaky: Flaky, tmp_path: Path) -> None:
    fill(flaky, a="12345")
    Flaky.failures[:] = [2] * (1 + storage.ATTEMPTS)  # the first is for the listing, which it does not harm
    with pytest.raises(RemoteError) as error:
        local_root("flaky://set", tmp_path)
    assert str(error.value) == (
        "flaky://set/a.txt cannot be read, after 4 attempts: 2 of 5 bytes came; check the address, the network and the "
        "credentials"
    )
    assert not list((tmp_path / "remote").rglob("a.txt"))
    assert tree(local_root("flaky://set", tmp_path)) == {"a.txt": "12345"}


def test_a_killed_copy_continues_where_it_was(flaky: Flaky, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(flaky, a="1", b="2", c="3")
    monkeypatch.setattr(copies, "_AT_ONCE", 1)
    taken = copies._Copy._take

    def killed(self: Any, place: Any, file: Any) -> Any:
        if file.name == "b.txt":
            raise KeyboardInterrupt
        return taken(self, place, file)

    with monkeypatch.context() as patched:
        patched.setattr(copies._Copy, "_take", killed)
        with pytest.raises(KeyboardInterrupt):
            local_root("flaky://set", tmp_path)
    (lines,) = (tmp_path / "remote").rglob("copied.jsonl")
    lines.write_bytes(lines.read_bytes() + b'["b.txt", "unfini')
    Flaky.copied.clear()
    local_root("flaky://set", tmp_path)
    assert "a.txt" not in Flaky.copied
    assert json.loads(lines.read_text().splitlines()[-1])[0] == "c.txt"


def test_a_storage_that_is_silent_does_not_stop_who_has_all(
    flaky: Flaky, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(flaky, a="1")
    folder = local_root("flaky://set", tmp_path)
    Flaky.failures[:] = [OSError("no route to host")] * storage.ATTEMPTS
    assert local_root("flaky://set", tmp_path) == folder
    assert "no route to host" in caplog.text
    assert "may be older" in caplog.text
    Flaky.failures[:] = [OSError("no route to host")] * storage.ATTEMPTS
    with pytest.raises(RemoteError, match="flaky://set cannot be read, after 4 attempts: no route to host"):
        local_root("flaky://set", tmp_path / "another machine")


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (FileNotFoundError("/set"), "there is no flaky://set; check the address"),
        (PermissionError("Forbidden"), "flaky://set may not be read: Forbidden; give this machine the credentials"),
    ],
)
def test_what_another_attempt_does_not_mend_is_said_at_once(
    flaky: Flaky, failure: Exception, expected: str, tmp_path: Path
) -> None:
    fill(flaky, a="1")
    Flaky.failures[:] = [failure]
    with pytest.raises(DatasetNotFoundError, match=expected):
        local_root("flaky://set", tmp_path)


def test_an_empty_place_and_unknown_or_missing_file_systems_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="there are no files in flaky://nothing"):
        local_root("flaky://nothing", tmp_path)
    with pytest.raises(DatasetFormatError, match=r"nosuch://a cannot be opened: Protocol not known: nosuch"):
        local_root("nosuch://a", tmp_path)


@pytest.mark.parametrize(
    ("address", "module", "package"),
    [
        ("s3://bucket/set", "s3fs", "'video-hpo[s3]'"),
        ("gs://bucket/set", "gcsfs", "'video-hpo[gs]'"),
        ("https://host/set", "aiohttp", "aiohttp"),
    ],
)
def test_a_file_system_that_is_not_installed_names_the_package(
    address: str, module: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheme = address.partition("://")[0]
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.http", raising=False)
    monkeypatch.delitem(
        import_module("fsspec.registry")._registry, scheme, raising=False
    )  # another test may have used it
    with pytest.raises(DatasetError) as error:
        local_root(address, tmp_path)
    assert str(error.value) == f"{scheme}:// needs a package that is not installed: pip install {package}"


def test_names_that_lead_out_of_the_folder_are_refused(flaky: Flaky, tmp_path: Path) -> None:
    fill(flaky, a="1")
    Flaky.store["/set/../../out.txt"] = Flaky.store["/set/a.txt"]
    with pytest.raises(DatasetFormatError, match=r"holds the name '\.\./\.\./out\.txt', which is no path below it"):
        local_root("flaky://set", tmp_path)


def test_a_disk_without_room_is_told_before_anything_is_copied(
    flaky: Flaky, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(flaky, a="1")
    monkeypatch.setattr(copies, "_SPARE_BYTES", 1 << 60)
    with pytest.raises(CacheError, match="make room there"):
        local_root("flaky://set", tmp_path)
    assert Flaky.copied == []


SECRETS = (
    "s3://AKIA123:topsecret@bucket/set",
    "https://user:topsecret@example.org/set",
    "https://example.org/set?X-Signature=topsecret",
    "gs://bucket/set#topsecret",
)


@pytest.mark.parametrize("root", SECRETS)
def test_credentials_in_an_address_are_refused_and_not_repeated(root: str, tmp_path: Path) -> None:
    for read in (lambda: local_root(root, tmp_path), lambda: DatasetSpec(root=root)):
        with pytest.raises((DatasetFormatError, InvalidSpecError)) as error:
            read()
        assert "topsecret" not in str(error.value)
        assert "leave" in str(error.value)
    assert not list(tmp_path.iterdir()) or "topsecret" not in str(list(tmp_path.rglob("*")))


@pytest.mark.parametrize(
    "root",
    ["s3://", "s3://bucket/../other", "s3://bucket/%2e%2E/other", "s3://a/b\\c", "zip://a.zip::s3://b/c", "s3://b/\n"],
)
def test_addresses_of_no_one_folder_are_refused(root: str) -> None:
    with pytest.raises(InvalidSpecError, match=r"is not the address of a folder|joins several addresses"):
        DatasetSpec(root=root)


@pytest.mark.parametrize(
    ("root", "below"),
    [
        ("s3://bucket", True),
        ("S3://bucket/sets/ucf101/", True),
        ("s3://bucket2", False),
        ("s3://bucke", False),
        ("gs://bucket", False),
        ("https://bucket", False),
    ],
)
def test_an_address_is_below_another_by_whole_names(root: str, below: bool) -> None:
    assert is_below(root, ["s3://bucket/"]) is below


@pytest.mark.parametrize("scheme", ["memory://made", "file://{}/nfs"])
def test_a_data_set_at_an_address_trains_from_the_cache(scheme: str, tmp_path: Path) -> None:
    root = scheme.format(tmp_path)
    files, folder = fsspec.core.url_to_fs(root)
    for number, name in enumerate(f"{c}/v_{c}_g0{g}_c01.avi" for c in ("Run", "Walk") for g in (1, 2)):
        write_video(tmp_path / "a.avi", moving(3, 16, 24, seed=number))
        files.makedirs(f"{folder}/{name.partition('/')[0]}", exist_ok=True)
        files.pipe_file(f"{folder}/{name}", (tmp_path / "a.avi").read_bytes())
    spec = DatasetSpec(name="auto", root=root, short_side=16)
    try:
        opened = open_dataset(spec, cache_dir=tmp_path / "cache")
        version = opened.version
        assert opened.spec.root == root
        (batch,) = opened.train_loader(clip=ClipSpec(frames=2, stride=1, size=16), batch_size=2, seed=0)
        assert len(batch.ids) == 2
        files.pipe_file(f"{folder}/Run/v_Run_g01_c01.avi", files.cat_file(f"{folder}/Walk/v_Walk_g01_c01.avi"))
        assert open_dataset(spec, cache_dir=tmp_path / "cache").version != version
    finally:
        files.rm(folder, recursive=True)

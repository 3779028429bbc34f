"""A data set behind pages of links, as a web server lists a folder."""

from __future__ import annotations

import functools
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tenacity import wait_none

from data.errors import DatasetNotFoundError
from data.remote import storage
from data.remote.copies import local_root


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if "closed" in self.path:
            self.send_error(403)
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    monkeypatch.setattr(storage, "WAIT", wait_none())
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_names_are_those_of_the_files_and_a_change_of_the_same_size_is_noticed(
    served: tuple[Path, str], tmp_path: Path
) -> None:
    folder, url = served
    names = ("Playing Guitar/a ü.avi", "Playing Guitar/100%25.avi", "list.txt")
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    copied = local_root(f"{url}/", tmp_path)
    assert {path.relative_to(copied).as_posix() for path in copied.rglob("*") if path.is_file()} == set(names)
    assert all((copied / name).read_text() == name for name in names)
    (folder / "list.txt").write_text("txt.tsil")
    os.utime(folder / "list.txt", (1, 1))
    assert (local_root(url, tmp_path) / "list.txt").read_text() == "txt.tsil"


@pytest.mark.parametrize(
    ("path", "words"), [("closed", "closed may not be read: 403"), ("nothing", "there are no files in")]
)
def test_what_may_not_be_read_and_what_is_not_there_are_named(
    served: tuple[Path, str], path: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(DatasetNotFoundError, match=words):
        local_root(f"{served[1]}/{path}", tmp_path)

"""Take the pictures of the documents: `pictures.py HOME FOLDER`, as `make pictures` does after `make demo`.

It serves the data directory of a finished demo, opens its pages and its report in chromium, and writes PNG files.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hpo.settings import read_server_file
from tests.browser.chromium import Page, browsing, find_chromium

START_SECONDS: Final = 120.0
STUDY: Final = "demo"
PICTURES: Final = {
    "home": ("/", 1180, 620),
    "study": (f"/studies/{STUDY}", 1180, 1500),
    "trial": (f"/studies/{STUDY}/trials/{{best}}", 1180, 1100),
}
"""Name of a file: the page, and its width and height in pixels."""
REPORT: Final = (1000, 1500)


def take(home: Path, folder: Path) -> None:
    """Write all pictures into `folder`."""
    program = find_chromium()
    if program is None:
        sys.exit("there is no chromium on this machine: apt-get install chromium")
    if not (home / "postgres").exists():
        sys.exit(f"{home} is not the data directory of a demo: run make demo first")
    folder.mkdir(parents=True, exist_ok=True)
    with serving(home) as url, tempfile.TemporaryDirectory() as scratch:
        best = _said(home, "best", STUDY).partition(":")[0].removeprefix("trial ")
        report = Path(scratch, "report.html")
        _said(home, "report", STUDY, "-o", str(report))
        with browsing(program, Path(scratch, "profile")) as page:
            page.open(_said(home, "login").split()[-1])
            page.wait_for("location.pathname === '/'")
            for name, (path, width, height) in PICTURES.items():
                _take(page, url + path.format(best=best), folder / f"{name}.png", width, height)
            _take(page, report.as_uri(), folder / "report.png", *REPORT)


def _take(page: Page, address: str, file: Path, width: int, height: int) -> None:
    page.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
    page.send("Emulation.setScrollbarsHidden", hidden=True)
    page.open(address)
    page.wait_for(f"location.href.startsWith({address!r}) && document.readyState === 'complete'")
    page.wait_for("[...document.querySelectorAll('figure .plot')].every(box => box.childElementCount > 0)")
    page.screenshot(file)
    print(file)


def _said(home: Path, *words: str) -> str:
    return subprocess.run([*_hpo(home), *words], check=True, capture_output=True, text=True).stdout.strip()


def _hpo(home: Path) -> list[str]:
    return [str(Path(sys.executable).with_name("hpo")), "--home", str(home)]


@contextmanager
def serving(home: Path) -> Iterator[str]:
    """Serve a data directory while the block runs; yield the address."""
    server = subprocess.Popen([*_hpo(home), "serve", "--port", "0", "--no-optimizer"], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS
        while (address := read_server_file(home / "server.json")) is None:
            if server.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"hpo serve does not start on {home}")
            time.sleep(0.2)
        yield address.url
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    take(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))

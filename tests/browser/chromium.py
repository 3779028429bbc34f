"""Drive a headless chromium over its debugging pipe: open pages, wait for what they show, take screenshots."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--window-size=1400,1800",
    "--remote-debugging-pipe",
)


def find_chromium() -> str | None:
    """Return the program's path, None where there is none."""
    return next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )


class PageError(AssertionError):
    """The page did not do what was asked."""


class Page:
    """One tab."""

    def __init__(self, writer: int, reader: int) -> None:
        self._writer = os.fdopen(writer, "wb", buffering=0)
        self._reader = os.fdopen(reader, "rb", buffering=0)
        self._buffer = b""
        self._count = 0
        self._session: str | None = None
        self.problems: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the result of a call of a DevTools protocol method."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._writer.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise PageError(answer["error"])
                return dict(answer["result"])
            self._note(answer)

    def open(self, url: str) -> None:
        """Go to an address."""
        self.send("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise PageError(found["exceptionDetails"])
        return found["result"].get("value")

    def wait_for(self, expression: str, *, seconds: float = 60.0) -> Any:
        """Return the first true value of the expression, evaluated again and again while the page changes."""
        deadline = time.monotonic() + seconds
        while True:
            # While a page is being replaced there may be no body, or nothing that could run a script.
            with suppress(PageError):
                if found := self.evaluate(expression):
                    return found
            if time.monotonic() > deadline:
                raise PageError(f"{expression} is not so: {self.evaluate('document.body?.innerText')}")
            with suppress(PageError):
                self.evaluate("new Promise(done => setTimeout(done, 100))")

    def screenshot(self, path: Path) -> bytes:
        """Return what the page shows as a PNG, which is also written to `path`."""
        image = base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])
        path.write_bytes(image)
        return image

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = self._reader.read(65536)
            assert part, "chromium has ended"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(params["exceptionDetails"])[:500])
        if event.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    def close(self) -> None:
        """Close the pipe, which ends the browser."""
        self._writer.close()
        self._reader.close()


@contextmanager
def browsing(program: str, profile: Path) -> Iterator[Page]:
    """Run a browser with a fresh profile while the block does."""
    commands, answers = os.pipe(), os.pipe()

    def wire() -> None:
        # The browser reads commands from descriptor 3 and writes answers to 4; move ours out of the way first.
        commands_in, answers_out = os.dup(commands[0]), os.dup(answers[1])
        high_in, high_out = _above(commands_in), _above(answers_out)
        os.dup2(high_in, 3)
        os.dup2(high_out, 4)

    process = subprocess.Popen(
        [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        preexec_fn=wire,  # noqa: PLW1509 - duplicates two descriptors; nothing else runs in the child before exec
        close_fds=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(commands[0])
    os.close(answers[1])
    page = Page(commands[1], answers[0])
    try:
        yield page
    finally:
        page.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _above(descriptor: int) -> int:
    kept = descriptor
    while kept in (3, 4):
        kept = os.dup(kept)
    return kept

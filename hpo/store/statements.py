"""The statements of `lifecycle.sql`, by name."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

from sqlalchemy import Connection, CursorResult, text

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load() -> dict[str, str]:
    """Read the statements; each begins with a line `-- name: NAME` and ends with a semicolon."""
    parts = _NAME.split(files("hpo.store").joinpath("lifecycle.sql").read_text(encoding="utf-8"))
    return {name: _code(body) for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def execute(connection: Connection, name: str, **values: Any) -> CursorResult[Any]:
    """Execute a statement of the lifecycle."""
    return connection.execute(text(STATEMENTS[name]), values)


def _code(body: str) -> str:
    lines = [line for line in body.splitlines() if not line.lstrip().startswith("--")]
    return "\n".join(lines).strip().removesuffix(";")


STATEMENTS = load()

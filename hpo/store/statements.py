"""The statements of `lifecycle.sql`, by name."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Any

from sqlalchemy import Connection, Result, TextClause, text

from .fleet_sql import OTHERS_MAY_HAVE_FILES, TOO_LARGE
from .trials import IS_LOSS
from .usage import HEARTBEATS_PER_LEASE, STUDY_USED_SECONDS
from .wire import prepared

TOKEN_IS_VALID = """
(CAST(:token AS bigint) IS NULL
 OR EXISTS (SELECT FROM api_token
            WHERE api_token.id = CAST(:token AS bigint) AND api_token.revoked_at IS NULL
              AND (api_token.expires_at IS NULL OR api_token.expires_at > clock_timestamp())))
""".strip()
"""Whether `:token` is valid still; without one, nobody asks."""
_MAY_BEGIN = """
trial.state IN ('suggested', 'paused')
AND NOT trial.held
AND (study.search_ended_at IS NULL OR trial.replicate_of IS NOT NULL)
AND (trial.not_before IS NULL OR trial.not_before <= clock_timestamp())
""".strip()
"""Whether a trial waits for a worker, as far as it and its study say."""
_PARTS = {
    "{may_begin}": _MAY_BEGIN,
    "{token_is_valid}": TOKEN_IS_VALID,
    "{study_used_seconds}": STUDY_USED_SECONDS,
    "{heartbeats_per_lease}": str(HEARTBEATS_PER_LEASE),
    "{others_may_have_files}": OTHERS_MAY_HAVE_FILES,
    "{too_large}": TOO_LARGE,
    "{is_loss}": IS_LOSS,
}
_OF_EVERY_TRIAL = frozenset({"claim", "standing", "report", "finish"})
_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load() -> dict[str, str]:
    """Read the statements; each begins with a line `-- name: NAME` and ends with a semicolon."""
    parts = _NAME.split(files("hpo.store").joinpath("lifecycle.sql").read_text(encoding="utf-8"))
    return {name: _code(body) for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def execute(connection: Connection, name: str, **values: Any) -> Result[Any]:
    """Execute a statement of the lifecycle."""
    if name in _OF_EVERY_TRIAL:
        return prepared(connection, _clause(STATEMENTS[name]), values)
    return connection.execute(_clause(STATEMENTS[name]), values)


@cache
def _clause(code: str) -> TextClause:
    """Return a statement as the object that SQLAlchemy compiles once."""
    return text(code)


def _code(body: str) -> str:
    lines = [line for line in body.splitlines() if not line.lstrip().startswith("--")]
    code = "\n".join(lines).strip().removesuffix(";")
    for part, meaning in _PARTS.items():
        code = code.replace(part, meaning)
    return code


STATEMENTS = load()

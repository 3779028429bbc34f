"""The key that hashes the tokens, the first token, and links that log a browser in once."""

from __future__ import annotations

import os
import secrets
from datetime import timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from hpo.errors import AuthenticationError, SetupError
from hpo.store import Database, tokens
from hpo.store.tokens import Scope, TokenRow

LEAST_KEY_BYTES: Final = 16
FIRST_NAMES: Final[dict[Scope, str]] = {
    "admin": "admin (made by hpo serve)",
    "worker": "worker (made by hpo serve)",
    "read": "reader (made by hpo serve)",
}


def load_secret(home: Path) -> bytes:
    """Return the key: `HPO_SECRET`, else what `HPO_SECRET_FILE` names, else the file `secret` in the data directory.

    Replicas share one of the first two. The last is made on first use, with mode 0600. Losing the key makes every token
    unknown.

    Raises:
        SetupError: the key is too short, or the file cannot be read or made.
    """
    given, file = os.environ.get("HPO_SECRET"), os.environ.get("HPO_SECRET_FILE")
    if given:
        return _checked(given.strip().encode(), "HPO_SECRET")
    if file:
        return _checked(_text_of(Path(file), "HPO_SECRET_FILE").encode(), file)
    path = home / "secret"
    try:
        if not path.exists():
            _write_new(path, secrets.token_urlsafe(32))
        path.chmod(0o600)
        return _checked(path.read_text(encoding="ascii").strip().encode(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"the key {path} cannot be read or made ({error})") from error


def take_tokens(database: Database, key: bytes, folder: Path) -> dict[Scope, str]:
    """Make the tokens in a folder valid, and return them: the file `admin`, `worker` or `read` holds one of that scope.

    So a secret that is made once, before the service, serves all replicas. What has been revoked stays so.

    Raises:
        SetupError: the folder has none of the files, one cannot be read, or holds what cannot be a token of its scope.
    """
    found = {scope: _text_of(folder / scope, "--tokens-dir") for scope in FIRST_NAMES if (folder / scope).exists()}
    if not found:
        raise SetupError(f"--tokens-dir {folder} has no file `admin`, `worker` or `read` with a token of that scope")
    for scope, token in found.items():
        try:
            with database.transaction() as connection:
                tokens.take(connection, token, name=f"{scope} (given to hpo serve)", scopes=[scope], key=key)
        except AuthenticationError as error:
            raise SetupError(
                f"the token in {folder / scope} is not valid with the scope {scope}: it was revoked, is one of another "
                "scope, or was not made by `hpo token generate`"
            ) from error
    return found


def bootstrap_token(database: Database, key: bytes, token_file: Path, *, scope: Scope = "admin") -> str:
    """Return the token in a file; make one on the first start, or when the one in the file is no longer valid.

    Raises:
        SetupError: the file cannot be read or written.
    """
    try:
        token = _known(database, key, token_file, scope)
        if token is None:
            with database.transaction() as connection:
                token = tokens.create(connection, name=FIRST_NAMES[scope], scopes=[scope], key=key)
            _write_over(token_file, token)
        token_file.chmod(0o600)
    except OSError as error:
        raise SetupError(f"the token file {token_file} cannot be read or written ({error.strerror})") from error
    return token


def create_login_link(database: Database, key: bytes, url: str, *, token: str, seconds: float = 3600.0) -> str:
    """Return an address below `url` that logs a browser in, once, within `seconds`.

    The session may on our pages what `token` may, and ends with it.

    Raises:
        AuthenticationError: `token` is not valid.
    """
    with database.transaction() as connection:
        owner = tokens.verify(connection, token, key)
        code = new_login_code(connection, key, owner=owner, seconds=seconds)
    return f"{url.rstrip('/')}/login?code={code}"


def new_login_code(connection: Connection, key: bytes, *, owner: TokenRow, seconds: float) -> str:
    """Make a code for `GET /login`, which is valid as long as the token `owner` is."""
    return tokens.create(
        connection,
        name=owner.name,
        scopes=owner.scopes,
        key=key,
        kind="login",
        expires=timedelta(seconds=seconds),
        parent=owner.id,
    )


def _known(database: Database, key: bytes, token_file: Path, scope: Scope) -> str | None:
    if not token_file.exists():
        return None
    token = token_file.read_text(encoding="utf-8", errors="replace").strip()
    try:
        with database.transaction() as connection:
            row = tokens.verify(connection, token, key, kind="api")
    except AuthenticationError:
        return None
    return token if row.scopes == {scope} else None


def _text_of(path: Path, named_by: str) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"the file {path} cannot be read ({error}): check {named_by}") from error


def _checked(key: bytes, source: str) -> bytes:
    if len(key) < LEAST_KEY_BYTES:
        raise SetupError(f"the key in {source} is too short; it needs at least {LEAST_KEY_BYTES} characters")
    return key


def _write_new(path: Path, text: str) -> None:
    """Write a file unless somebody else has just done so; nobody ever reads half of it."""
    aside = _aside(path, text)
    try:
        os.link(aside, path)
    except FileExistsError:
        return
    finally:
        aside.unlink()


def _write_over(path: Path, text: str) -> None:
    _aside(path, text).replace(path)


def _aside(path: Path, text: str) -> Path:
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    return aside

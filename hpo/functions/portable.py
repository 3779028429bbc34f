"""A function in a file, with all that it refers to: how `hpo.tune` hands one to workers."""

from __future__ import annotations

import hashlib
import inspect
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import CodeType
from typing import Any, Final

from ..errors import SetupError

SUFFIX: Final = ".function"
_importing = False


class EntryReached(BaseException):
    """A module that a worker imports for its function calls `hpo.tune`."""


@contextmanager
def importing_entry() -> Iterator[None]:
    """Have `hpo.tune` raise `EntryReached` in this block: a worker imports the script that started it."""
    global _importing  # noqa: PLW0603 - a process is a worker's, or it is not
    before, _importing = _importing, True
    try:
        yield
    finally:
        _importing = before


def is_importing_entry() -> bool:
    """Return whether a worker imports a module for its function at the moment."""
    return _importing


def write_function(function: Callable[..., Any], folder: Path) -> Path:
    """Write a function, by value, into a file of `folder`, and return its path.

    Functions of the running script or notebook, lambdas and closures are kept with the values that they refer to; those
    of modules by name, so that workers import the modules again.

    Raises:
        SetupError: something that it refers to cannot be written.
    """
    import cloudpickle

    name = getattr(function, "__qualname__", type(function).__name__)
    try:
        content = cloudpickle.dumps(function)
    except Exception as error:  # whatever an object of the person's raises
        reason = (str(error).splitlines() or [""])[0][:300]
        raise SetupError(
            f"{name} cannot be handed to workers ({type(error).__name__}: {reason}): make inside the function what it "
            "refers to, or put it into a module of its own"
        ) from error
    sha256 = hashlib.sha256(_source(function) or content).hexdigest()
    about = {"name": _named(function, name), "sha256": sha256, "path": _search_path(), "function": content}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{sha256[:16]}-{os.getpid()}{SUFFIX}"
    path.touch(mode=0o600)
    path.write_bytes(pickle.dumps(about))
    return path


def _named(function: Callable[..., Any], name: str) -> str:
    """Return the name of a function with that of its file, where it has one."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    file = None if code is None else Path(code.co_filename)
    return f"{file.name}:{name}" if file is not None and file.suffix == ".py" else name


def _source(function: Callable[..., Any]) -> bytes | None:
    """Return the source of a function, and of the functions and classes of its module that it refers to."""
    try:
        found = [inspect.getsource(function)]
    except (OSError, TypeError):
        return None
    for helper in _helpers(function):
        with suppress(OSError, TypeError):
            found.append(inspect.getsource(helper))
    return "".join(found).encode()


def _helpers(function: Callable[..., Any]) -> list[Any]:
    """Return what a function refers to of its own module, and what that refers to, in the order of the names."""
    unwrapped = inspect.unwrap(function)
    known = getattr(unwrapped, "__globals__", {})
    helpers: dict[str, Any] = {}
    left = list(_names(_code_of(unwrapped)))
    while left:
        name = left.pop()
        helper = known.get(name)
        is_code = inspect.isfunction(helper) or inspect.isclass(helper)
        if name in helpers or not is_code or helper.__module__ != unwrapped.__module__ or helper is unwrapped:
            continue
        helpers[name] = helper
        members = list(vars(helper).values()) if inspect.isclass(helper) else [helper]
        left += [inner for member in members for inner in _names(_code_of(member))]
    return [helpers[name] for name in sorted(helpers)]


def _code_of(function: object) -> CodeType | None:
    """Return the code of a function, or of a static or class method; None of anything else."""
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return code if isinstance(code, CodeType) else None


def _names(code: CodeType | None) -> Iterator[str]:
    """Yield the names that code refers to, that of functions inside of it included."""
    if code is not None:
        yield from code.co_names
        for inner in code.co_consts:
            if isinstance(inner, CodeType):
                yield from _names(inner)


def _search_path() -> list[str]:
    """Return where this program finds modules of its own: its folder, and what it has added."""
    first = sys.path[0] if sys.path else ""
    return [
        str(Path(entry).absolute())
        for entry in dict.fromkeys([first, *sys.path])
        if "site-packages" not in entry and not entry.endswith(".zip") and not _is_standard(entry)
    ]


def _is_standard(entry: str) -> bool:
    root = Path(os.__file__).parent
    return Path(entry or ".").absolute() in (root, root / "lib-dynload")

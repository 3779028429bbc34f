"""One worker for a GPU, or several that each take a stated share of its memory: two that do not know of each other
would run out of memory in turn.

Each worker locks a file of its own in the folder of its GPU; the system unlocks it when the process ends, however that
happens. Workers of other data directories and other users are not seen.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from hpo.errors import SetupError

_ROUNDING = 1e-9


@contextmanager
def card_locked(folder: Path, card: str, *, share: float = 1.0) -> Iterator[None]:
    """Hold `share` of a GPU for this process during the block.

    Args:
        folder: where the locks of all GPUs of this machine are.
        card: what no other GPU is called, such as its UUID.
        share: of its memory; all of it excludes every other worker.

    Raises:
        SetupError: other workers hold so much of it that `share` is not left; the message names them.
    """
    place = folder / card.replace("/", "-")
    try:
        place.mkdir(parents=True, exist_ok=True)
        with (place / "all.lock").open("a") as everyone:
            fcntl.flock(everyone, fcntl.LOCK_EX)  # held for milliseconds, by one worker that starts at a time
            others = list(_held(place))
            if sum(held for _, held in others) + share > 1 + _ROUNDING:
                raise SetupError(_taken(others, share))
            mine = _hold(place, share)
    except OSError as error:
        raise SetupError(f"the lock of the GPU cannot be taken in {place}: {error.strerror or error}") from error
    try:
        yield
    finally:
        Path(mine.name).unlink(missing_ok=True)
        mine.close()


def _held(place: Path) -> Iterator[tuple[int, float]]:
    """Yield the process and the share of each worker that lives, and remove the files of those that do not."""
    for path in place.glob("*.share"):
        with suppress(FileNotFoundError), path.open("r+") as file:  # one that ends removes its file
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield int(path.stem.partition("-")[0]), float(file.read())
            else:
                path.unlink(missing_ok=True)


def _hold(place: Path, share: float) -> IO[str]:
    """Return the locked file that says which share this process holds."""
    file = (place / f"{os.getpid()}-{secrets.token_hex(4)}.share").open("w")
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    file.write(repr(share))
    file.flush()
    return file


def _taken(others: list[tuple[int, float]], share: float) -> str:
    ids = " and ".join(str(process) for process, _ in sorted(others))
    held = sum(part for _, part in others)
    who = f"worker process {ids} holds" if len(others) == 1 else f"worker processes {ids} hold"
    left = max(0.0, 1 - held)
    if left <= _ROUNDING:
        return (
            f"the GPU is taken: {who} all of its memory; stop it, use another GPU, or start all of its workers with "
            "--memory-share"
        )
    return f"{who} {held:g} of the GPU's memory, so that {left:g} is left, and not {share:g}"

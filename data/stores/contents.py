"""What the clips of a cache were made of: in a file beside the manifest, which earlier releases read as well."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from ..errors import CacheError

CONTENTS_FILE = "contents.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """Two columns of the clips of a cache, in the order of its manifest."""

    made_of: tuple[str, ...]
    """What each clip's frames were made of (`data.stores.reuse.content_of`)."""
    checksums: tuple[int | None, ...]
    """CRC of the stored bytes of each clip as they were written; None where it is not known."""

    def save(self, folder: Path) -> None:
        """Write the file atomically."""
        aside = folder / f"{CONTENTS_FILE}.part"
        with aside.open("w", encoding="utf-8") as file:
            json.dump(asdict(self), file, separators=(",", ":"))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(folder / CONTENTS_FILE)

    @classmethod
    def load(cls, folder: Path, n_clips: int) -> Self:
        """Return the contents of a cache of so many clips.

        Raises:
            CacheError: nothing is known of them, as of the caches of 0.2.0.
        """
        path = folder / CONTENTS_FILE
        try:
            columns = json.loads(path.read_text(encoding="utf-8"))
            found = cls(made_of=tuple(columns["made_of"]), checksums=tuple(columns["checksums"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CacheError(f"{path} cannot be read ({error})") from error
        if not len(found.made_of) == len(found.checksums) == n_clips:
            raise CacheError(f"{path} is of other clips")
        return found


def checksum(records: Iterable[bytes]) -> int:
    """Return the CRC of several byte strings after each other."""
    found = 0
    for record in records:
        found = zlib.crc32(record, found)
    return found

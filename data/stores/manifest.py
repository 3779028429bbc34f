"""The manifest of a finished cache: a table of its clips, stored by columns."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from ..errors import CacheError

CACHE_FORMAT = 2
MANIFEST_FILE = "manifest.json"
BEGUN_FILE = "begun.json"
"""The manifest of an unfinished cache: its clips and their shards, without what only a finished one knows."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The clips of a cache in the order of their frames; columns load a hundred times as fast as records.

    Workers of 0.2.0 that share the cache folder read it and refuse keys that they do not know: a new column needs a
    file of its own (such as `contents.json`) or another `CACHE_FORMAT`.
    """

    form: str
    """The form of its frames: see `data.stores.forms.FORMS`."""
    channels: int
    settings: Mapping[str, Any]
    """The data set, the settings of the preparation and the reason for the form, for information."""
    ids: tuple[str, ...]
    n_frames: tuple[int, ...]
    height: tuple[int, ...]
    width: tuple[int, ...]
    shard: tuple[int, ...]
    """Number of the shard that holds each clip."""
    offset: tuple[int, ...]
    """Bytes in the shard before the clip."""
    first: tuple[int, ...]
    """Frames of all clips before this one."""
    shard_bytes: tuple[int, ...]

    @cached_property
    def rows(self) -> dict[str, int]:
        """Position of each clip in the columns."""
        return {id_: row for row, id_ in enumerate(self.ids)}

    def save(self, folder: Path, name: str = MANIFEST_FILE) -> None:
        """Write the manifest atomically."""
        content = {"format": CACHE_FORMAT, **asdict(self)}
        aside = folder / f"{name}.part"
        with aside.open("w", encoding="utf-8") as file:
            json.dump(content, file, separators=(",", ":"))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(folder / name)

    @classmethod
    def load(cls, folder: Path, name: str = MANIFEST_FILE) -> Self:
        """Return the manifest of a cache.

        Raises:
            CacheError: it does not exist or cannot be read.
        """
        path = folder / name
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("format") != CACHE_FORMAT:
                raise ValueError("another format")
            known = {field.name for field in fields(cls)}  # and a later release may add others
            columns: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in content.items() if k in known
            }
            return cls(**columns)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CacheError(f"{path} cannot be read ({error}); delete {folder}") from error

"""Groups of clips with the same source, read from the file names of known data sets.

v_Archery_g01_c07                            group 01 of class Archery (UCF101 numbers groups per class)
RATRACE_wave_f_nm_np1_fr_goo_37              the film RATRACE, in all classes (HMDB51)
0wR5jVB-WPk_000417_000427                    the YouTube video 0wR5jVB-WPk, in all classes (Kinetics)
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..errors import DatasetFormatError, quoted
from .listing import Listing
from .records import ListedClip

_UCF101 = re.compile(r"_(g\d+)(?:_c\d+)?$", re.IGNORECASE)
_HMDB51 = re.compile(r"^(.+)_[a-z]_(?:cm|nm)_np\d+_(?:ba|fr|le|ri)_(?:bad|goo|med)_\d+$")
_KINETICS = re.compile(r"^([\w-]{11})_\d{6}_\d{6}$")


def source_group(class_name: str, stem: str) -> str | None:
    """Return the source in a file's name, unique in its data set, or None if the name has none.

    Args:
        stem: the file's name without folder and suffix.
    """
    if found := _UCF101.search(stem):
        return f"{class_name}/{found[1].lower()}"
    if found := _HMDB51.match(stem):
        ending = f"_{class_name.replace(' ', '_')}"
        return found[1].removesuffix(ending) if found[1].endswith(ending) else None
    if found := _KINETICS.match(stem):
        return found[1]
    return None


def has_groups(clips: Iterable[ListedClip]) -> bool:
    """Return whether any source is known: a clip of unknown source is its own group."""
    return any(clip.group != clip.id for clip in clips)


PATTERN_SECONDS = 30.0
"""How long a pattern may be searched in all ids. Some take longer than the universe is old."""
_NEEDED = ("PATH", "LD_LIBRARY_PATH")
"""All that this process gets of our environment, which may hold secrets."""
_SEARCH = """
import json, re, sys
pattern, ids = json.load(sys.stdin)
compiled = re.compile(pattern)
found = [compiled.search(id) for id in ids]
json.dump([one and ("/".join(filter(None, one.groups())) or one[0]) for one in found], sys.stdout)
"""


def _found(pattern: str, ids: Sequence[str]) -> list[str | None]:
    """Return what the pattern finds in each id, None where it matches nothing.

    A search that goes on holds up all threads of a process, and cannot be interrupted: it has a process of its own,
    which imports nothing but the standard library (`-I`).

    Raises:
        DatasetFormatError: it takes longer than `PATTERN_SECONDS`, or too much memory.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _SEARCH],
            input=json.dumps([pattern, list(ids)]),
            capture_output=True,
            text=True,
            env={name: os.environ[name] for name in _NEEDED if name in os.environ},
            timeout=PATTERN_SECONDS,
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise DatasetFormatError(
            f"group_pattern {pattern!r} takes more than {PATTERN_SECONDS:g} s on {len(ids)} ids: write it without "
            "repetitions inside of repetitions"
        ) from None
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise DatasetFormatError(f"group_pattern {pattern!r} cannot be searched: {last}") from None
    found: list[str | None] = json.loads(done.stdout)
    return found


def regroup(listing: Listing, pattern: str) -> Listing:
    """Return the listing with the groups that `pattern` finds in the clips' ids.

    The group is the text that the pattern's parentheses match, or the whole match without parentheses. A clip
    without a match is its own group.

    Raises:
        DatasetFormatError: the pattern is not a regular expression, or matches no clip.
    """
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise DatasetFormatError(f"group_pattern {pattern!r} is not a regular expression: {error}") from None
    groups = _found(pattern, [clip.id for clip in listing.clips])
    clips = [
        replace(clip, group=clip.id if group is None else group)
        for clip, group in zip(listing.clips, groups, strict=True)
    ]
    missed = groups.count(None)
    if missed == len(clips):
        first = f", for example not {quoted(clips[0].id)}" if clips else ""
        raise DatasetFormatError(f"group_pattern {pattern!r} matches no clip{first}: it is searched in the ids")
    notes = listing.notes
    if missed:
        notes += (f"group_pattern does not match {missed} of {len(clips)} clips; each of these is its own group",)
    return replace(listing, clips=tuple(clips), notes=notes)

"""Names of classes in the letters that OpenCV draws, which are those of ASCII."""

from __future__ import annotations

import unicodedata


def drawable(name: str, number: int) -> str:
    """Return what stands on a picture for the class `number`: its name, or what of it can be drawn.

    Accents are left out. A name with other letters has its number before it, counted from 0, as a model card lists it.
    """
    letters = "".join(one for one in unicodedata.normalize("NFKD", name) if not unicodedata.combining(one))
    if letters.isascii():
        return letters
    drawn = letters.encode("ascii", "replace").decode("ascii")
    return f"{number}: {drawn}" if any(one.isalnum() for one in drawn) else f"class {number}"

"""The status of a clip after decoding it once."""

from typing import Literal

Status = Literal["ok", "missing", "empty", "corrupt", "truncated", "short"]

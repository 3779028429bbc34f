"""What decoding a clip showed, in one word."""

from typing import Literal

Status = Literal["ok", "missing", "empty", "corrupt", "truncated", "short"]

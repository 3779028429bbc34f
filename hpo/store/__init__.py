"""The store: studies, trials, measurements, workers, events and tokens in Postgres.

Functions take a connection from `Database.transaction()` first and never commit. Only the statements of
`lifecycle.sql` move a trial from one state to another.
"""

from .database import Database
from .embedded import EmbeddedPostgres
from .migrate import migrate

__all__ = ["Database", "EmbeddedPostgres", "migrate"]

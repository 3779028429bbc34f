"""A database whose time a test sets: the statements read it in the place of the server's clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from hpo.store import Database

START = datetime(2100, 1, 1, tzinfo=UTC)
"""Later than any time that a column's default takes from the real clock."""
_SETUP = (
    "CREATE SCHEMA clocked",
    "CREATE TABLE clocked.clock AS SELECT CAST(:start AS timestamptz) AS moment",
    "CREATE FUNCTION clocked.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE"
    " AS 'SELECT moment FROM clocked.clock'",
    # In a schema that is searched before pg_catalog the function hides that of the server.
    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = clocked, pg_catalog, public', current_database());"
    " END $$",
)


class Clock:
    """Seconds since the start of a test, as the database sees them."""

    def __init__(self, database: Database) -> None:
        """Give the database a clock that stands still until it is set."""
        self._database = database
        with database.transaction() as connection:
            for statement in _SETUP:
                connection.execute(text(statement), {"start": START})
        database.close()  # sessions read the search path when they begin

    def set(self, seconds: float) -> None:
        """Let it be this many seconds after the start."""
        with self._database.transaction() as connection:
            moment = START + timedelta(seconds=seconds)
            connection.execute(text("UPDATE clocked.clock SET moment = :moment"), {"moment": moment})

"""Launchers, with real workers against a real API over a real Postgres."""

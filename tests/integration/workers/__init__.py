"""Real workers against a real API over a real Postgres, on real (generated) video."""

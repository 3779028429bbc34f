"""Functions of a person's own: finding them, their checkpoints, and what their exceptions mean. Needs no torch."""

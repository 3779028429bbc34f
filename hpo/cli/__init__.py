"""The `hpo` command: the composition root, the only place that may import every package.

Each command imports the packages it needs when it runs, so that `hpo study create` does not wait for PyTorch.
"""

# Importing these modules adds their commands: each registers itself with the root in `app`.
from . import (  # noqa: F401
    database,
    dataset_index,
    datasets,
    demo,
    doctor,
    guesses,
    models,
    preparing,
    results,
    serve,
    studies,
    tokens,
    train,
)
from .app import main

__all__ = ["main"]

"""The `hpo` command: the composition root, the only place that may import every package.

Each command imports the packages it needs when it runs, so that `hpo study create` does not wait for PyTorch, and
`hpo --help` not even for the modules of the commands.
"""

from .app import main

__all__ = ["main"]

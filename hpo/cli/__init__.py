"""The `hpo` command: the composition root, the only place that may import every package.

Each command imports the packages it needs when it runs, so that `hpo study create` does not wait for PyTorch, and
`hpo --help` not even for pydantic or httpx.
"""

from ..errors import SetupError
from ..installation import check_installation
from .app import main

try:
    check_installation()
except SetupError:
    pass  # another package shadows one of ours: `main` says so, and the commands could not even be imported
else:
    # Importing these modules adds their commands: each registers itself with the root in `app`.
    from . import (  # noqa: F401 - for their effect
        database,
        dataset_index,
        datasets,
        demo,
        doctor,
        evaluate,
        finalists,
        fuse,
        gc,
        guesses,
        logs,
        model_check,
        model_weights,
        models,
        predict,
        preparing,
        recipes,
        report,
        results,
        serve,
        studies,
        study_changes,
        tokens,
        train,
        trial,
        workers,
    )

__all__ = ["main"]

"""The names of the commands, and where their code is: each command waits only for the import of its own modules."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Final


class Place:
    """The modules that make up a command or a group of commands, and the sentence that `hpo --help` says of it."""

    def __init__(self, help_line: str, *modules: str, hidden: bool = False) -> None:
        self.help_line = help_line
        self.modules = modules
        self.hidden = hidden

    def load(self) -> None:
        """Import the modules; each registers its commands with the root in `app`."""
        for module in self.modules:
            import_module(f".{module}", __package__)


COMMANDS: Final[Mapping[str, Place]] = {
    "api-process": Place(
        "Serve the API on an inherited socket; `hpo serve --processes` starts this.", "api_processes", hidden=True
    ),
    "serve": Place(
        "Serve the API and the dashboard, with the optimizer and (unless DATABASE_URL is set) Postgres.", "serve"
    ),
    "optimizer": Place("Run an optimizer process alone; `hpo serve` starts its own.", "serve"),
    "trials": Place("List the trials of a study, best first; on a narrow terminal with fewer columns.", "results"),
    "best": Place(
        "Show the best configuration of a study and how sure that is; with several objectives the whole front.",
        "results",
    ),
    "export": Place(
        "Write the best configuration to a file, with its checkpoint beside it; or all trials for Optuna.", "results"
    ),
    "demo": Place(
        "Run a whole study on generated videos: data, service, workers, optimizer, export, final test.", "demo"
    ),
    "doctor": Place(
        "Check this machine: Python, PyTorch and its GPUs, the data directory, the service, the disk.", "doctor"
    ),
    "evaluate": Place(
        "Score an exported checkpoint on the test list, which no trial of the study has seen.", "evaluate"
    ),
    "finalists": Place(
        "Train the best configurations again with fresh seeds, until one of them is clear.", "finalists"
    ),
    "fuse": Place(
        "Average the probabilities of models of the same classes, by weights that only validation videos decide.",
        "fuse",
    ),
    "gc": Place("Remove what nobody needs of the checkpoint files on this machine, and show what stays and why.", "gc"),
    "launch": Place(
        "Start workers and keep them running: on this machine, or on a cluster.", "launch", "launch_ray", "launch_slurm"
    ),
    "logs": Place(
        "Print what happened in a study, oldest first; or what the worker of one trial printed, from any machine.",
        "logs",
    ),
    "predict": Place(
        "Predict the classes of videos, in bounded memory however long they are, or of images.", "predict"
    ),
    "report": Place(
        "Write a study as one file: HTML with everything, Markdown without figures, or a picture with the main ones.",
        "report",
    ),
    "importance": Place(
        "Show which parameters matter for the objectives of a study, and in which direction.", "report"
    ),
    "login": Place(
        "Print a new link to the pages of the service; it logs a browser in once, for as long as your token is valid.",
        "tokens",
    ),
    "train": Place(
        "Train an exported configuration again, or run your function with it, and compare the scores.",
        "train",
    ),
    "db": Place("Maintain the database.", "database"),
    "data": Place("Make, check and prepare data sets.", "datasets", "dataset_index", "preparing"),
    "study": Place("Create and control studies.", "studies", "guesses", "import_results", "study_changes"),
    "models": Place("List the models, and check one.", "models", "model_check", "model_weights"),
    "recipes": Place("List the recipes, and show one.", "recipes"),
    "token": Place("Show, create, list and revoke API tokens.", "tokens"),
    "trial": Place("Show, cancel, retry and delete a trial.", "trial"),
    "workers": Place("List the workers, and let those in quarantine have trials again.", "workers"),
}
"""In the order in which `hpo --help` lists them."""

"""Which packages are sampled, and which tests each of them has."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from .mutations import Mutant, mutants_of

ROOT: Final = Path(__file__).resolve().parents[2]
TESTS: Final[dict[str, list[str]]] = {
    "hpo/spec": ["tests/unit/hpo/spec", "tests/unit/hpo/cli/test_spec_check.py"],
    "hpo/results": ["tests/unit/hpo/results", "tests/unit/hpo/stopping"],
    "hpo/stopping": ["tests/unit/hpo/stopping"],
    "hpo/optimizer": ["tests/unit/hpo/optimizer"],
    "hpo/optuna_view": ["tests/unit/hpo/optuna_view"],
    "hpo/store": ["tests/integration/store", "tests/migration"],
    "hpo/service": ["tests/unit/hpo/service", "tests/integration/service", "tests/integration/api"],
    "hpo/client": [
        "tests/unit/hpo/client",
        "tests/integration/api/test_client.py",
        "tests/integration/api/test_client_kinds.py",
        "tests/integration/api/test_ask_tell.py",
        "tests/integration/api/test_outage.py",
    ],
    "hpo/optuna": ["tests/integration/api/test_optuna_scripts.py"],
    "hpo/cli": [
        "tests/unit/hpo/cli",
        "tests/integration/cli",
        "tests/integration/api/test_study_command.py",
        "tests/acceptance/test_serve.py",
    ],
    "hpo/protocol.py": ["tests/integration/api", "tests/unit/workers/lease"],
    "hpo/settings.py": ["tests/unit/hpo/cli", "tests/unit/workers/lease", "tests/integration/cli"],
    "api": ["tests/integration/api"],
    "data/specs": ["tests/unit/data/test_specs.py", "tests/unit/hpo/spec", "tests/unit/data/clips"],
    "data/index": ["tests/unit/data/index", "tests/unit/data/importers"],
    "data/reading": ["tests/unit/data/reading"],
    "data/importers": ["tests/unit/data/importers"],
    "data/stores": ["tests/unit/data/stores", "tests/unit/data/preparation"],
    "data/clips": ["tests/unit/data/clips"],
    "data/scanning": ["tests/unit/data/test_dataset.py", "tests/unit/hpo/cli/test_dataset_index.py"],
    "data/flow": ["tests/unit/data/flow", "tests/unit/data/preparation"],
    "data/preparation": ["tests/unit/data/preparation", "tests/unit/hpo/cli/test_preparing.py"],
    "data/export": ["tests/unit/data/export", "tests/unit/data/importers/test_round_trips.py"],
    "data/synthetic": ["tests/unit/data/synthetic"],
    "data/dataset.py": ["tests/unit/data/test_dataset.py", "tests/unit/data/clips"],
    "models/catalogue.py": ["tests/unit/models/test_catalogue.py", "tests/unit/models/test_own_model.py"],
    "models/video_model.py": ["tests/unit/models/test_video_model.py", "tests/unit/workers/training"],
    "models/architectures": ["tests/unit/models"],
    "models/layers": ["tests/unit/models/layers", "tests/unit/models/architectures"],
    "models/weights": ["tests/unit/models/weights"],
    "workers/lease": ["tests/unit/workers/lease", "tests/integration/workers"],
    "workers/process": ["tests/unit/workers/process", "tests/integration/workers"],
    "workers/training": ["tests/unit/workers/training"],
    "workers/evaluation": ["tests/unit/workers/evaluation"],
    "workers/device": ["tests/unit/workers/device"],
    "workers/retrain.py": ["tests/unit/workers/test_retrain.py"],
    "workers/checkpoints": ["tests/unit/workers/checkpoints", "tests/unit/workers/training"],
}
"""Package, or single module, to its tests, the quick ones first; those that mirror a mutant's module go before all."""


def modules(package: str) -> list[Path]:
    """Return the modules of a package, relative to the checkout; migrations, which have run, are left out."""
    if (ROOT / package).is_file():
        return [Path(package)]
    found = (path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py"))
    return sorted(path for path in found if "migrations" not in path.parts and "cards" not in path.parts)


def mutants(package: str) -> list[tuple[Path, Mutant]]:
    """Return every mutant of a package, with its module."""
    return [(path, mutant) for path in modules(package) for mutant in mutants_of((ROOT / path).read_text())]


def judges_of(package: str, module: Path) -> list[str]:
    """Return what judges a mutant of `module`, the tests that mirror it first; only what there is."""
    name = f"test_{module.stem}.py"
    mirrors = [f"tests/{kind}/{module.parent}/{name}" for kind in ("unit", "integration")]
    nested = [str(path.relative_to(ROOT)) for folder in TESTS[package] for path in sorted((ROOT / folder).rglob(name))]
    found = dict.fromkeys([*mirrors, *nested, *TESTS[package]])
    return [path for path in found if (ROOT / path).exists()]

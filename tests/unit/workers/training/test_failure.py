"""What kind of failure an exception is, from real exceptions where they can be had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data import DatasetSpec, open_dataset
from hpo.spec import TrainingConfig
from hpo.trial import FailureKind
from models import create_model
from workers.errors import DivergedError, TimeLimitError
from workers.training.failure import MESSAGE_CHARACTERS, classify
from workers.training.model import build_model

from ..tiny import tiny_config

EXBIBYTE = 2**60


def _raised(call: Callable[[], Any]) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is what the test is about
        call()
    assert isinstance(caught.value, Exception)
    return caught.value


@pytest.mark.parametrize(
    "allocate",
    [lambda: torch.empty(EXBIBYTE, dtype=torch.uint8), lambda: np.empty(EXBIBYTE, dtype=np.uint8)],
    ids=["torch", "numpy"],
)
def test_a_real_allocation_failure_on_the_cpu_is_oom(allocate: Callable[[], Any]) -> None:
    failure = classify(_raised(allocate))
    assert failure.kind is FailureKind.OOM
    assert failure.message.startswith("the trial did not fit into memory: ")
    assert "\n" not in failure.message


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_what_gpus_and_the_system_say_about_memory_is_oom(error: Exception) -> None:
    assert classify(error).kind is FailureKind.OOM


def test_words_about_memory_in_other_errors_are_not_oom() -> None:
    assert classify(KeyError("out of memory")).kind is FailureKind.ERROR


def test_divergence_and_time_keep_their_sentences() -> None:
    assert classify(DivergedError("the loss became nan")).kind is FailureKind.DIVERGED
    assert classify(TimeLimitError("too long")).kind is FailureKind.TIMEOUT


def test_a_configuration_that_does_not_validate_is_invalid_and_names_the_field() -> None:
    failure = classify(_raised(lambda: TrainingConfig.from_flat({"lr": -1, "model.x": [1]})))
    assert failure.kind is FailureKind.INVALID
    assert failure.message.startswith("the configuration is not valid: ")
    assert "lr: " in failure.message
    assert "model.x" in failure.message
    assert "\n" not in failure.message


@pytest.mark.parametrize(
    "build",
    [
        lambda: create_model("no_such_model", num_classes=2),
        lambda: build_model(tiny_config(**{"model.alpha": 4, "model.beta_inv": 3}), num_classes=2),
        lambda: build_model(tiny_config(**{"model.weights": "/etc/passwd"}), num_classes=2),
        lambda: build_model(tiny_config(**{"model.num_classes": 7}), num_classes=2),
        lambda: build_model(tiny_config(), num_classes=2)(torch.zeros(1, 3, 7, 24, 24)),
    ],
    ids=["name", "combination", "weights", "classes", "clip"],
)
def test_a_model_that_cannot_be_built_or_fed_is_invalid(build: Callable[[], Any]) -> None:
    failure = classify(_raised(build))
    assert failure.kind is FailureKind.INVALID
    assert "Traceback" not in failure.message


def test_a_missing_data_set_is_invalid_and_names_its_folder(tmp_path: Path) -> None:
    missing = DatasetSpec(root=str(tmp_path / "nowhere"))
    failure = classify(_raised(lambda: open_dataset(missing, cache_dir=tmp_path)))
    assert failure.kind is FailureKind.INVALID
    assert str(tmp_path / "nowhere") in failure.message
    assert "Traceback" not in failure.message


def _deep(depth: int) -> None:
    if depth == 0:
        raise ValueError("at the bottom\nof the well")
    try:
        _deep(depth - 1)
    except ValueError as error:
        raise ValueError(f"level {depth}") from error


def test_any_other_exception_keeps_its_traceback_within_bounds() -> None:
    failure = classify(_raised(lambda: _deep(200)))
    assert failure.kind is FailureKind.ERROR
    assert failure.message.splitlines()[0] == "ValueError: level 200"
    assert len(failure.message) <= MESSAGE_CHARACTERS
    assert "at the bottom" in failure.message
    assert failure.message.rstrip().endswith("ValueError: level 200")

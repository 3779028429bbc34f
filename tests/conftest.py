"""Fixtures that every kind of test shares."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import hypothesis
import pytest

pytest_plugins = ["tests.postgres"]

CHECKOUT = Path(__file__).resolve().parents[1]

# How long an example takes says how busy the machine is, and is not what any of these tests is about.
# Examples are new ones in every run, so that many short runs search as far as a long one: `--hypothesis-profile=long`.
# Not in `.ci/run`, which says `repeatable`: what fails there should be what the change broke.
hypothesis.settings.register_profile("short", deadline=None, max_examples=30)
hypothesis.settings.register_profile("long", deadline=None, max_examples=300)
hypothesis.settings.register_profile("repeatable", deadline=None, max_examples=30, derandomize=True)
hypothesis.settings.load_profile(os.environ.get("HPO_TEST_PROFILE", "short"))


def pytest_collection_finish() -> None:
    """Leave out of later garbage collections what stays until the end: all modules, and thousands of tests.

    Each collection would look at millions of objects again, and training collects whenever memory runs out.
    """
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Let the interpreter clear everything when it ends; some libraries complain of what is left."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real clips and lists that stands beside a checkout; skips where it is absent."""
    folder = CHECKOUT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the shared data folder is not beside this checkout")
    return folder

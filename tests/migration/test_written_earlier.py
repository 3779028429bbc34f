"""What release 0.1.0 stored, sent and exported is read as it was, and written the same again.

`written_by_0_1_0.json` was made by that release: specs as stored, each with a trial, its lease and its export.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpo.protocol import Lease
from hpo.results.export import build_export, dump_export, load_export
from hpo.spec import VideoTask, dump_spec, parse_spec, stored_spec
from hpo.trial import TrialRecord, TrialState

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "written_by_0_1_0.json").read_text())
case = pytest.mark.parametrize("case", CASES, ids=[found["spec"]["name"] for found in CASES])


@case
def test_a_stored_spec_is_read_and_written_to_the_last_key(case: dict[str, Any]) -> None:
    spec = stored_spec(case["spec"])
    assert isinstance(spec.task, VideoTask)
    assert json.dumps(dump_spec(spec)) == json.dumps(case["spec"]), "in the same order too"
    assert parse_spec(case["spec"]) == spec


@case
def test_a_trial_has_the_same_configuration(case: dict[str, Any]) -> None:
    config = stored_spec(case["spec"]).trial_config(case["params"], number=case["number"])
    assert json.dumps(config) == json.dumps(case["lease"]["config"])


@case
def test_a_lease_is_what_a_worker_of_that_release_reads_and_the_other_way_round(case: dict[str, Any]) -> None:
    lease = Lease.model_validate(case["lease"])
    spec = stored_spec(case["spec"])
    assert lease.task == spec.task
    sent = json.loads(lease.model_copy(update={"task": spec.task}).to_json())
    assert json.dumps(sent) == json.dumps(case["lease"])


@case
def test_an_export_is_read_and_written_to_the_last_byte(case: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "best.yaml").write_text(case["export"])
    export = load_export(tmp_path / "best.yaml")
    assert dump_export(export, form="yaml") == case["export"]
    spec = stored_spec(case["spec"])
    trial = TrialRecord(
        id=2,
        number=case["number"],
        state=TrialState.COMPLETED,
        params=case["params"],
        metrics=export.metrics,
        epochs_done=spec.task.epochs,
    )
    built = build_export(
        study=spec.name,
        spec=spec,
        trial=trial,
        dataset_version=export.dataset_version,
        environment=export.environment,
        checkpoint=export.checkpoint,
    )
    assert dump_export(built, form="yaml") == case["export"]

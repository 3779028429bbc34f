"""The manifests for Kubernetes: valid by its own schemas, with commands, paths and times of ours, and few rights."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import pytest
import yaml

from api.auth.gate import OPEN
from hpo.installation import EXIT_TOKEN, EXIT_USAGE
from hpo.service.optimizer_process import STUCK_SECONDS
from workers.lease.trial_run import DRAIN_SECONDS, EXIT_SECONDS, HAND_IN_SECONDS

from .test_docker import unknown_options

CHECKOUT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = CHECKOUT / "docker" / "k8s"
RELEASES: Final = ("1.31", "1.37")
"""The oldest that has all fields in their final form, and the newest that the validator knows."""
KEDA: Final = "keda.sh/"
Manifest = dict[str, Any]


def _documents(text: str) -> list[Manifest]:
    return [document for document in yaml.safe_load_all(text) if document]


def _written() -> Iterator[tuple[Path, Manifest]]:
    """Yield every manifest as it is in its file."""
    for kustomization in sorted(FOLDER.rglob("kustomization.yaml")):
        for name in yaml.safe_load(kustomization.read_text())["resources"]:
            if (path := kustomization.parent / name).is_file():
                yield from ((path, document) for document in _documents(path.read_text()))


MANIFESTS: Final = list(_written())
PODS: Final = {
    f"{document['kind']} {document['metadata']['name']}": document["spec"]["template"]["spec"]
    for _, document in MANIFESTS
    if document["kind"] in ("Deployment", "Job", "StatefulSet")
}
WORKERS: Final = [name for name in PODS if name.partition(" ")[2] in ("hpo-worker", "hpo-worker-group")]


def _check(document: Manifest) -> None:
    if document["apiVersion"].startswith(KEDA):
        return  # what KEDA adds has no schema in the validator
    for release in RELEASES:
        kubernetes_validate.validate(document, release, strict=True)


@pytest.mark.parametrize(("path", "document"), MANIFESTS)
def test_every_manifest_is_valid(path: Path, document: Manifest) -> None:
    assert path.suffix == ".yaml"
    _check(document)


def test_no_file_is_left_out() -> None:
    others = {"kustomization.yaml", "names.yaml"}
    assert {path for path in FOLDER.rglob("*.yaml") if path.name not in others} == {path for path, _ in MANIFESTS}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl, which has kustomize in it, is not here")
def test_the_example_is_built_and_each_kind_of_gpu_has_its_own() -> None:
    command = ["kubectl", "kustomize", str(FOLDER / "example")]
    built = _documents(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for document in built:
        _check(document)
    deployments, scaled = _of_kind(built, "Deployment"), _of_kind(built, "ScaledObject")
    assert list(scaled) == ["hpo-worker-a100", "hpo-worker-l4"]
    selectors = [document["spec"]["selector"]["matchLabels"] for document in deployments.values()]
    assert all(selectors.count(selector) == 1 for selector in selectors)
    (policy,) = (found for name, found in _of_kind(built, "NetworkPolicy").items() if name == "hpo-worker")
    api = _of_kind(built, "Service")["hpo-api"]
    address = f"hpo-api.{api['metadata']['namespace']}.svc:{api['spec']['ports'][0]['port']}"
    for name, document in scaled.items():
        assert document["spec"]["scaleTargetRef"]["name"] == name
        (trigger,) = document["spec"]["triggers"]
        assert trigger["authenticationRef"]["name"] in _of_kind(built, "TriggerAuthentication")
        assert trigger["metadata"]["url"] == f"http://{address}/metrics"
        pod = deployments[name]["spec"]["template"]["metadata"]["labels"]
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= pod.items()


def _of_kind(documents: list[Manifest], kind: str) -> dict[str, Manifest]:
    return {document["metadata"]["name"]: document for document in documents if document["kind"] == kind}


@pytest.mark.parametrize("name", PODS)
def test_a_pod_has_no_more_rights_than_it_needs(name: str) -> None:
    pod = PODS[name]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 1000
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
    assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("name", PODS)
def test_what_a_pod_writes_is_on_a_volume(name: str) -> None:
    pod = PODS[name]
    (container,) = pod["containers"]
    assert {volume["name"] for volume in pod["volumes"]} == {mount["name"] for mount in container["volumeMounts"]}
    writable = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert "/tmp" in writable  # noqa: S108 - an emptyDir of the pod
    values = {entry["name"]: entry.get("value") for entry in container["env"]}
    for variable in ("HPO_HOME", "HOME"):
        assert any(Path(values[variable]).is_relative_to(place) for place in writable), variable
    # The volume itself may be written by everybody, which is refused for a data directory.
    assert values["HPO_HOME"] not in writable


@pytest.mark.parametrize("name", PODS)
def test_a_pod_runs_a_command_and_options_of_ours(name: str) -> None:
    assert unknown_options(PODS[name]["containers"][0]["args"]) == set()


def test_secrets_are_files_and_a_worker_has_the_token_for_trials_alone() -> None:
    for pod in PODS.values():
        sources = [entry["valueFrom"] for entry in pod["containers"][0]["env"] if "valueFrom" in entry]
        named = [source["secretKeyRef"] for source in sources if "secretKeyRef" in source]
        assert named in ([], [{"name": "hpo-database", "key": "url"}])  # the address, which has no password in it
    for worker in WORKERS:
        (secret,) = (volume["secret"] for volume in PODS[worker]["volumes"] if "secret" in volume)
        assert secret["items"] == [{"key": "worker", "path": "worker"}]
    page = (CHECKOUT / "docs" / "kubernetes.md").read_text()
    wanted = {
        volume["secret"]["secretName"] for pod in PODS.values() for volume in pod["volumes"] if "secret" in volume
    }
    assert all(f"create secret generic {name}" in page for name in wanted)


def test_probes_ask_what_is_open_and_restart_nothing_for_want_of_postgres() -> None:
    (api,) = PODS["Deployment hpo-api"]["containers"]
    paths = {name: api[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert set(paths.values()) <= OPEN
    assert paths["livenessProbe"] == paths["startupProbe"] == "/v1/health/live"
    assert paths["readinessProbe"] == "/v1/health"
    (optimizer,) = PODS["Deployment hpo-optimizer"]["containers"]
    (file,) = (word.partition("=")[2] for word in optimizer["args"] if word.startswith("--alive-file="))
    test = optimizer["livenessProbe"]["exec"]["command"][-1]
    assert f"find {file} -mmin -{STUCK_SECONDS / 60 + 1:.0f}" in test


def test_the_optimizer_is_alive_while_its_file_is_fresh(tmp_path: Path) -> None:
    (optimizer,) = PODS["Deployment hpo-optimizer"]["containers"]
    file = tmp_path / "alive"
    *shell, test = optimizer["livenessProbe"]["exec"]["command"]

    def status() -> int:
        command = [*shell, test.replace("/tmp/alive", str(file))]  # noqa: S108 - in the container
        return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode

    assert status() != 0
    file.touch()
    assert status() == 0
    twelve_minutes_ago = time.time() - 12 * 60
    os.utime(file, (twelve_minutes_ago, twelve_minutes_ago))
    assert status() != 0


@pytest.mark.parametrize("worker", WORKERS)
def test_a_worker_has_the_time_that_draining_takes(worker: str) -> None:
    needed = DRAIN_SECONDS + HAND_IN_SECONDS + EXIT_SECONDS
    assert PODS[worker]["terminationGracePeriodSeconds"] > needed


@pytest.mark.parametrize("worker", WORKERS)
def test_a_worker_is_on_its_node_so_that_a_sick_node_is_put_into_quarantine_as_a_whole(worker: str) -> None:
    (container,) = PODS[worker]["containers"]
    (host,) = (one for one in container["env"] if one["name"] == "HPO_HOST")
    assert host["valueFrom"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}


def test_the_workers_of_a_job_differ_in_when_they_end_alone() -> None:
    deployed, job = PODS["Deployment hpo-worker"], PODS["Job hpo-worker"]
    args = job["containers"][0]["args"]
    assert args[:-2] == deployed["containers"][0]["args"]
    assert [option.partition("=")[0] for option in args[-2:]] == ["--exit-when-idle", "--drained-status"]
    same = {**job, "containers": [{**job["containers"][0], "args": args[:-2]}]}
    assert same == {**deployed, "restartPolicy": "Never"}


def test_a_pod_of_a_job_that_is_asked_to_end_is_neither_its_success_nor_its_failure() -> None:
    (job,) = (document["spec"] for _, document in MANIFESTS if document["kind"] == "Job")
    (container,) = job["template"]["spec"]["containers"]
    (status,) = (int(word.partition("=")[2]) for word in container["args"] if word.startswith("--drained-status="))
    assert status == 128 + signal.SIGTERM, "the same as after a second SIGTERM"
    codes = {
        value: rule["action"]
        for rule in job["podFailurePolicy"]["rules"]
        for value in rule.get("onExitCodes", {"values": []})["values"]
    }
    assert codes == {EXIT_USAGE: "FailJob", EXIT_TOKEN: "FailJob", status: "Ignore"}


def test_the_certificates_that_the_address_of_postgres_names_are_those_of_the_image() -> None:
    page = (CHECKOUT / "docs" / "kubernetes.md").read_text()
    (address,) = re.findall(r"--from-literal=url='(\S+)'", page)
    asked = parse_qs(urlsplit(address).query)
    # `system` would be a folder that was there when psycopg2-binary was built, and is nowhere else.
    assert asked == {"sslmode": ["verify-full"], "sslrootcert": ["/etc/ssl/certs/ca-certificates.crt"]}


def test_the_workers_of_a_group_find_and_reach_each_other() -> None:
    of_group = {
        document["kind"]: document for path, document in MANIFESTS if path.parent.name == "worker-group"
    }  # of the two policies the last, which is that of the API
    workers, service = of_group["StatefulSet"], of_group["Service"]
    name, labels = workers["metadata"]["name"], workers["spec"]["template"]["metadata"]["labels"]
    args = workers["spec"]["template"]["spec"]["containers"][0]["args"]
    options = dict(one.split("=", 1) for one in args if one.startswith("--"))
    assert workers["spec"]["serviceName"] == service["metadata"]["name"]
    assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)
    assert service["spec"]["selector"].items() <= labels.items()
    assert int(options["--nodes"]) == workers["spec"]["replicas"]
    assert options["--meet"].startswith(f"{name}-0.{service['metadata']['name']}:")
    own, of_api = (
        document["spec"]
        for path, document in MANIFESTS
        if path.parent.name == "worker-group" and document["kind"] == "NetworkPolicy"
    )
    peers = [{"podSelector": {"matchLabels": labels}}]
    assert own["podSelector"]["matchLabels"] == labels
    assert ({"from": peers} in own["ingress"], {"to": peers} in own["egress"]) == (True, True)
    assert [rule["from"] for rule in of_api["ingress"]] == [peers]

"""The overlays of `infra/kubernetes`: valid, hardened, and with arguments that the command line accepts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from infra.local.mosquitto import RELEASE, Mosquitto
from infra.local.topics import pointillist_topics
from infra.process.metrics_server import role_registry, serve
from processors.settings import ProcessorSettings
from schemas import metrics
from schemas.late_counter import LateCounter
from schemas.limits import MAX_BROKER_BYTES
from schemas.runtime.health import Health
from schemas.topics import KafkaTopic
from tests.fetching import fetch
from tests.infra.alert_rules import ALERTS
from tests.infra.command_line import parse_arguments
from tests.infra.crd_schemas import read_schemas
from tests.infra.kustomize import Resource, build

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "infra" / "kubernetes"
VERSION = "1.34"
OVERLAYS = {folder.name: build(folder) for folder in sorted((KUBERNETES / "overlays").iterdir())}
ROLES = {"bridge", "processor", "recorder", "console", "monitor"}
DATABASE_USERS = {"recorder", "console", "monitor"}
OPERATORS = read_schemas()
each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def of_kind(overlay: str, *kinds: str) -> dict[str, Resource]:
    return {each["metadata"]["name"]: each for each in OVERLAYS[overlay] if each["kind"] in kinds}


def pods(overlay: str) -> dict[str, dict[str, Any]]:
    """Return the specs of the pods by the name of their Deployment or StatefulSet."""
    found = of_kind(overlay, "Deployment", "StatefulSet")
    return {name: each["spec"]["template"]["spec"] for name, each in found.items()}


def containers(overlay: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Yield each container with its name and the spec of its pod."""
    for name, spec in pods(overlay).items():
        (container,) = spec["containers"]
        yield name, container, spec


def environment(container: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in container.get("env", [])}


@cache
def validator(group: str, kind: str) -> jsonschema.protocols.Validator:
    """Return the validator of an operator's kind. The check of its schema takes longer than that of a resource."""
    schema = OPERATORS[group, kind]["schema"]
    kind_of_schema = jsonschema.validators.validator_for(schema)
    kind_of_schema.check_schema(schema)
    return kind_of_schema(schema)


def check(resource: Resource) -> None:
    """Validate a resource against the schema that Kubernetes or the kind's operator publishes."""
    group, _, version = resource["apiVersion"].rpartition("/")
    operator = OPERATORS.get((group, resource["kind"]))
    if operator is not None:
        assert version == operator["version"]
        validator(group, resource["kind"]).validate(resource)
    else:
        kubernetes_validate.validate(resource, VERSION, strict=True)


def test_every_resource_is_valid_by_its_published_schema() -> None:
    for resource in {
        json.dumps(each, sort_keys=True): each for all_of in OVERLAYS.values() for each in all_of
    }.values():
        check(resource)


def build_with(component: str, folder: Path) -> list[Resource]:
    """Build the base with a component in an empty folder and return its resources."""
    for name in ("base", "components"):
        (folder / name).symlink_to(KUBERNETES / name)
    (folder / "overlay").mkdir()
    document = {"namespace": "pointillist", "resources": ["../base"], "components": [f"../components/{component}"]}
    (folder / "overlay" / "kustomization.yaml").write_text(json.dumps(document))
    return build(folder / "overlay")


@pytest.mark.parametrize("name", sorted(each.name for each in (KUBERNETES / "components").iterdir()))
def test_every_resource_with_a_component_is_valid(tmp_path: Path, name: str) -> None:
    for resource in build_with(name, tmp_path):
        if resource not in OVERLAYS["cpu"]:
            check(resource)


def test_every_used_group_of_resources_has_a_published_schema() -> None:
    groups = {each["apiVersion"].rpartition("/")[0] for all_of in OVERLAYS.values() for each in all_of}
    assert {group for group, _ in OPERATORS} == {group for group in groups if "." in group and "k8s.io" not in group}


@pytest.mark.parametrize(
    "kind", ["PodDisruptionBudget", "ScaledObject", "PodMonitor", "PrometheusRule", "KafkaNodePool", "Kafka"]
)
def test_an_unknown_field_fails_the_validation(kind: str) -> None:
    resource = json.loads(json.dumps(next(iter(of_kind("cpu", kind).values()))))
    resource["spec"]["replcas"] = 3
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check(resource)


@each_overlay
def test_there_is_one_workload_for_each_role_and_a_broker(overlay: str) -> None:
    assert of_kind(overlay, "Deployment").keys() == ROLES - {"processor"}
    assert of_kind(overlay, "StatefulSet").keys() == {Mosquitto.role, "processor"}


def test_a_role_without_a_pod_raises_an_alert() -> None:
    rule = ALERTS["PointillistRoleMissing"]["expr"]
    assert set(re.findall(r'unless on \(namespace\) pointillist_build_info\{role="(\w+)"\}', rule)) == ROLES


@each_overlay
def test_every_alert_rule_is_in_an_object_that_the_prometheus_operator_reads(overlay: str) -> None:
    (rules,) = of_kind(overlay, "PrometheusRule").values()
    assert {rule["alert"]: rule for group in rules["spec"]["groups"] for rule in group["rules"]} == ALERTS


@each_overlay
def test_mosquitto_has_the_supported_release_as_in_compose(overlay: str) -> None:
    (image,) = (container["image"] for name, container, _ in containers(overlay) if name == Mosquitto.role)
    assert image.startswith(f"eclipse-mosquitto:{RELEASE}.")
    assert yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["mosquitto"]["image"] == image


@each_overlay
def test_the_command_line_accepts_the_arguments_of_every_role(overlay: str) -> None:
    for name, container, _ in containers(overlay):
        if name in ROLES:
            assert parse_arguments(container["args"])


def test_no_probe_counts_as_the_first_scrape_of_a_counter() -> None:
    registry = role_registry("processor")
    counter = metrics.KAFKA_DAMAGED.on(registry).labels("processor")
    counter.inc()  # during the start, before Prometheus scrapes
    server = serve(registry, Health(), ("127.0.0.1", 0))
    try:
        for name, container, _ in containers("cpu"):
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                path = container.get(kind, {}).get("httpGet", {}).get("path", "")
                if name in ROLES and path.startswith("/metrics"):
                    url = f"http://127.0.0.1:{server.server_address[1]}{path}"
                    assert b"pointillist_build_info{" in fetch(url)
    finally:
        server.shutdown()
        server.server_close()
    assert isinstance(counter, LateCounter)
    assert counter._scraped_s is None


def test_the_image_has_the_compiler_that_the_processor_uses_on_a_gpu() -> None:
    (container,) = (container for name, container, _ in containers("gpu") if name == "processor")
    assert "--device=cuda" in container["args"]
    assert "--no-compile" not in container["args"]
    assert ProcessorSettings().compile is not False
    _, image = (ROOT / "infra/compose/Dockerfile").read_text().rsplit("\nFROM ", 1)
    assert "install -y --no-install-recommends g++ " in image


@each_overlay
def test_the_console_can_write_its_files(overlay: str) -> None:
    ((container, _),) = ((container, spec) for name, container, spec in containers(overlay) if name == "console")
    (folder,) = (each.partition("=")[2] for each in container["args"] if each.startswith("--kept-files="))
    writable = [each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")]
    assert any(folder.startswith(f"{each}/") for each in writable)


@each_overlay
def test_pods_that_share_a_single_node_volume_have_affinity_for_each_other(overlay: str) -> None:
    shared = 0
    for claim, resource in of_kind(overlay, "PersistentVolumeClaim").items():
        users = {name: spec for name, spec in pods(overlay).items() if claim in claims_of(spec)}
        if resource["spec"]["accessModes"] == ["ReadWriteOnce"] and len(users) > 1:
            shared += 1
            for name, spec in users.items():
                assert affine_workloads(spec) & (users.keys() - {name}), name
    assert shared


def test_several_recorders_have_no_node_affinity_and_share_a_volume(tmp_path: Path) -> None:
    resources = {(each["kind"], each["metadata"]["name"]): each for each in build_with("recorders", tmp_path)}
    assert resources["PersistentVolumeClaim", "quarantine"]["spec"]["accessModes"] == ["ReadWriteMany"]
    assert not affine_workloads(resources["Deployment", "recorder"]["spec"]["template"]["spec"])


def claims_of(spec: dict[str, Any]) -> set[str]:
    return {each["persistentVolumeClaim"]["claimName"] for each in spec["volumes"] if "persistentVolumeClaim" in each}


def affine_workloads(spec: dict[str, Any]) -> set[str]:
    """Return the workloads on whose nodes a pod must or should run."""
    affinity = spec.get("affinity", {}).get("podAffinity", {})
    terms = [
        *affinity.get("requiredDuringSchedulingIgnoredDuringExecution", []),
        *(each["podAffinityTerm"] for each in affinity.get("preferredDuringSchedulingIgnoredDuringExecution", [])),
    ]
    return {
        each["labelSelector"]["matchLabels"]["app.kubernetes.io/name"]
        for each in terms
        if each["topologyKey"] == "kubernetes.io/hostname"
    }


@each_overlay
def test_no_pod_has_more_rights_than_it_needs(overlay: str) -> None:
    for name, container, spec in containers(overlay):
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
        }  # fmt: skip
        assert "memory" in container["resources"]["limits"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert not any("hostPath" in volume for volume in spec["volumes"])
    (namespace,) = of_kind(overlay, "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@each_overlay
def test_no_secret_has_a_value_and_each_role_mounts_only_its_own(overlay: str) -> None:
    assert not of_kind(overlay, "Secret")
    users: dict[str, set[str]] = {}
    for name, container, spec in containers(overlay):
        for variable, entry in environment(container).items():
            if re.search("SECRET|PASSWORD|TOKEN|_KEY|LOGIN", variable):
                assert "value" not in entry or variable.endswith("_FILE"), variable
        for volume in spec["volumes"]:
            assert (volume.get("secret") or volume.get("projected") or {"defaultMode": 0o440})["defaultMode"] == 0o440
            for secret in secrets_of(volume):
                users.setdefault(secret, set()).add(name)
    # The authorities' certificates are public, and the same for all roles.
    (kafka,) = of_kind(overlay, "Kafka").values()
    assert users.pop(f"{kafka['metadata']['name']}-cluster-ca-cert") == ROLES
    assert users.pop("pointillist-database") == DATABASE_USERS
    assert {f"pointillist-{role}" for role in (*ROLES, Mosquitto.role)} | ROLES <= users.keys()
    assert all(len(roles) == 1 for roles in users.values())
    text = json.dumps([each for each in OVERLAYS[overlay] if each["kind"] != "ConfigMap"])
    assert not re.search(r"://[^/@\s]*:[^/@\s]*@", text), "a password in a URL"


def secrets_of(volume: dict[str, Any]) -> list[str]:
    """Return the names of the secrets in a volume."""
    if "secret" in volume:
        return [volume["secret"]["secretName"]]
    return [source["secret"]["name"] for source in volume.get("projected", {}).get("sources", [])]


@each_overlay
def test_network_policies_deny_all_traffic_except_named_ports(overlay: str) -> None:
    policies = of_kind(overlay, "NetworkPolicy")
    closed = policies["nothing-else"]["spec"]
    assert set(closed["policyTypes"]) == {"Ingress", "Egress"}
    assert not {"ingress", "egress"} & closed.keys()
    open_ports = {port for _, container, _ in containers(overlay) for port in port_names(container)}
    for policy in policies.values():
        for rule in policy["spec"].get("ingress", []):
            # A rule opens named ports that exist, and never all ports.
            assert {port["port"] for port in rule["ports"]} <= open_ports
        assert all(rule["ports"] for rule in policy["spec"].get("egress", []))


def port_names(container: dict[str, Any]) -> set[str]:
    return {port["name"] for port in container["ports"]}


@each_overlay
def test_topics_have_three_replicas_and_writes_need_two(overlay: str) -> None:
    (kafka,) = of_kind(overlay, "Kafka").values()
    (nodes,) = of_kind(overlay, "KafkaNodePool").values()
    config = kafka["spec"]["kafka"]["config"]
    assert nodes["spec"]["replicas"] == 3
    assert set(nodes["spec"]["roles"]) == {"controller", "broker"}
    assert config["message.max.bytes"] == config["replica.fetch.max.bytes"] == MAX_BROKER_BYTES
    assert config["auto.create.topics.enable"] is False
    assert config["min.insync.replicas"] == 2
    topics = of_kind(overlay, "KafkaTopic")
    assert topics.keys() == set(KafkaTopic)
    for name, spec in pointillist_topics(24, 3).items():
        found = topics[name]["spec"]
        assert (found["partitions"], found["replicas"]) == (spec.partitions, 3)
        assert {key: str(value) for key, value in found["config"].items()} == spec.settings() | {
            "min.insync.replicas": "2"
        }
    for each in (*topics.values(), nodes, *of_kind(overlay, "KafkaUser").values()):
        assert each["metadata"]["labels"]["strimzi.io/cluster"] == kafka["metadata"]["name"]

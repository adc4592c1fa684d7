"""`infra/kubernetes`: what its overlays come to is valid, hardened, and asks our command line for what it has."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import psycopg
import pytest

from infra.local.mosquitto import Mosquitto
from infra.local.topics import pointillist_topics
from infra.state_folder.environment import Environment
from schemas.keys.signers import TrustedSigners
from schemas.limits import MAX_BROKER_BYTES
from schemas.topics import PROCESSORS_GROUP, KafkaTopic
from tests.infra.command_line import parsed
from tests.infra.crd_schemas import published
from tests.infra.kustomize import Resource, build, identity

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "infra" / "kubernetes"
VERSION = "1.34"
OVERLAYS = {folder.name: build(folder) for folder in sorted((KUBERNETES / "overlays").iterdir())}
ROLES = {"bridge", "processor", "recorder", "console", "monitor"}
OF_THE_DATABASE = {"recorder", "console", "monitor"}
OPERATORS = published()
each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)
OF_LIBRARIES = {option.envvar.decode() for option in psycopg.pq.Conninfo.get_defaults() if option.envvar} | {
    "OMP_NUM_THREADS", "HOME",
}  # fmt: skip


def of_kind(overlay: str, *kinds: str) -> dict[str, Resource]:
    return {each["metadata"]["name"]: each for each in OVERLAYS[overlay] if each["kind"] in kinds}


def pods(overlay: str) -> dict[str, dict[str, Any]]:
    """The pods' specs by what runs them."""
    found = of_kind(overlay, "Deployment", "StatefulSet")
    return {name: each["spec"]["template"]["spec"] for name, each in found.items()}


def containers(overlay: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Each container with its name and the spec of its pod."""
    for name, spec in pods(overlay).items():
        (container,) = spec["containers"]
        yield name, container, spec


def environment(container: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in container.get("env", [])}


def check(resource: Resource) -> None:
    """Validate by the schema that Kubernetes or the kind's operator publishes."""
    group, _, version = resource["apiVersion"].rpartition("/")
    operator = OPERATORS.get((group, resource["kind"]))
    if operator is not None:
        assert version == operator["version"]
        jsonschema.validate(resource, operator["schema"])
    else:
        kubernetes_validate.validate(resource, VERSION, strict=True)


def test_every_resource_is_valid_by_its_published_schema() -> None:
    for resource in {
        json.dumps(each, sort_keys=True): each for all_of in OVERLAYS.values() for each in all_of
    }.values():
        check(resource)


def test_kubernetes_and_every_operator_know_the_kinds_that_are_used() -> None:
    groups = {each["apiVersion"].rpartition("/")[0] for all_of in OVERLAYS.values() for each in all_of}
    assert {group for group, _ in OPERATORS} == {group for group in groups if "." in group and "k8s.io" not in group}


@pytest.mark.parametrize("kind", ["PodDisruptionBudget", "ScaledObject", "PodMonitor", "KafkaNodePool", "Kafka"])
def test_a_field_that_does_not_exist_is_noticed(kind: str) -> None:
    resource = json.loads(json.dumps(next(iter(of_kind("cpu", kind).values()))))
    resource["spec"]["replcas"] = 3
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check(resource)


@each_overlay
def test_there_is_one_deployment_for_each_role_and_a_broker(overlay: str) -> None:
    assert of_kind(overlay, "Deployment").keys() == ROLES
    assert of_kind(overlay, "StatefulSet").keys() == {Mosquitto.role}


@each_overlay
def test_our_own_command_line_accepts_the_arguments_of_every_role(overlay: str) -> None:
    for name, container, _ in containers(overlay):
        if name in ROLES:
            assert parsed(container["args"])


@each_overlay
def test_every_variable_is_one_that_is_read(overlay: str) -> None:
    ours = {f"POINTILLIST_{name}".upper() for name in Environment.model_fields}
    for name, container, _ in containers(overlay):
        for variable in environment(container):
            known = ours | OF_LIBRARIES | set(re.findall(r"\$\((\w+)\)", " ".join(container["args"])))
            assert variable in known, f"{name}: {variable}"


@each_overlay
def test_every_variable_in_an_argument_is_defined(overlay: str) -> None:
    for _, container, _ in containers(overlay):
        assert set(re.findall(r"\$\((\w+)\)", " ".join(container.get("args", [])))) <= environment(container).keys()


@each_overlay
def test_every_path_that_is_named_is_mounted_and_every_mount_has_its_volume(overlay: str) -> None:
    for name, container, spec in containers(overlay):
        volumes = {volume["name"] for volume in spec["volumes"]} | ({"data"} if name == Mosquitto.role else set())
        targets = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        words = [*container.get("command", []), *container.get("args", [])]
        words += [str(entry.get("value", "")) for entry in container.get("env", [])]
        for path in re.findall(r"(?:^|[ =])(/[^ ]*)", " ".join(words)):
            assert any(path == target or path.startswith(f"{target}/") for target in targets), f"{name}: {path}"


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
def test_no_secret_has_a_value_and_each_role_is_given_its_own(overlay: str) -> None:
    assert not of_kind(overlay, "Secret")
    given: dict[str, set[str]] = {}
    for name, container, spec in containers(overlay):
        for variable, entry in environment(container).items():
            if re.search("SECRET|PASSWORD|TOKEN|_KEY|LOGIN", variable):
                assert "value" not in entry or variable.endswith("_FILE"), variable
        for volume in spec["volumes"]:
            assert (volume.get("secret") or volume.get("projected") or {"defaultMode": 0o440})["defaultMode"] == 0o440
            for secret in secrets_of(volume):
                given.setdefault(secret, set()).add(name)
    # Whom to trust is no secret, and the same for all.
    (kafka,) = of_kind(overlay, "Kafka").values()
    assert given.pop(f"{kafka['metadata']['name']}-cluster-ca-cert") == ROLES
    assert given.pop("pointillist-database") == OF_THE_DATABASE
    assert {f"pointillist-{role}" for role in (*ROLES, Mosquitto.role)} | ROLES <= given.keys()
    assert all(len(roles) == 1 for roles in given.values())
    text = json.dumps([each for each in OVERLAYS[overlay] if each["kind"] != "ConfigMap"])
    assert not re.search(r"://[^/@\s]*:[^/@\s]*@", text), "a password in a URL"


def secrets_of(volume: dict[str, Any]) -> list[str]:
    """The names of the secrets in a volume."""
    if "secret" in volume:
        return [volume["secret"]["secretName"]]
    return [source["secret"]["name"] for source in volume.get("projected", {}).get("sources", [])]


@each_overlay
def test_every_role_says_how_it_is_and_is_not_restarted_for_a_broker_that_is_away(overlay: str) -> None:
    for name, container, spec in containers(overlay):
        ports = {port["name"] for port in container["ports"]}
        if name not in ROLES:
            continue
        assert parsed(container["args"])["metrics"] == "0.0.0.0:9100"
        assert parsed(container["args"])["connect_timeout_s"] == 0
        assert container["readinessProbe"]["httpGet"] == {"path": "/healthz", "port": "metrics"}
        assert container["livenessProbe"]["httpGet"] == {"path": "/metrics", "port": "metrics"}
        assert "metrics" in ports
        # It drains before it is killed.
        assert spec["terminationGracePeriodSeconds"] >= 45


@each_overlay
def test_disruptions_leave_each_role_at_work(overlay: str) -> None:
    budgets = of_kind(overlay, "PodDisruptionBudget")
    assert {budget["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"] for budget in budgets.values()} == ROLES


@each_overlay
def test_every_selector_finds_what_it_means(overlay: str) -> None:
    labels = [
        each["spec"]["template"]["metadata"]["labels"]
        for each in of_kind(overlay, "Deployment", "StatefulSet").values()
    ]

    def chosen(wanted: dict[str, str]) -> list[dict[str, str]]:
        return [each for each in labels if wanted.items() <= each.items()]

    for kind in ("Deployment", "StatefulSet", "PodDisruptionBudget"):
        for name, each in of_kind(overlay, kind).items():
            assert len(chosen(each["spec"]["selector"]["matchLabels"])) == 1, f"{kind} {name}"
    for service in of_kind(overlay, "Service").values():
        assert len(chosen(service["spec"]["selector"])) == 1
    for policy in of_kind(overlay, "NetworkPolicy").values():
        if "matchLabels" in policy["spec"]["podSelector"]:
            assert chosen(policy["spec"]["podSelector"]["matchLabels"])
        for rule in policy["spec"]["podSelector"].get("matchExpressions", []):
            assert rule["operator"] == "In"
            assert all(chosen({rule["key"]: value}) for value in rule["values"])
    assert all(each["app.kubernetes.io/part-of"] == "pointillist" for each in labels)


@each_overlay
def test_every_pod_is_shut_off_but_for_what_a_policy_opens(overlay: str) -> None:
    policies = of_kind(overlay, "NetworkPolicy")
    shut = policies["nothing-else"]["spec"]
    assert set(shut["policyTypes"]) == {"Ingress", "Egress"}
    assert not {"ingress", "egress"} & shut.keys()
    open_ports = {port for _, container, _ in containers(overlay) for port in names_of_ports(container)}
    for policy in policies.values():
        for rule in policy["spec"].get("ingress", []):
            # Whoever is let in is let in by a port that is there, never by all.
            assert {port["port"] for port in rule["ports"]} <= open_ports
        assert all(rule["ports"] for rule in policy["spec"].get("egress", []))


def names_of_ports(container: dict[str, Any]) -> set[str]:
    return {port["name"] for port in container["ports"]}


@each_overlay
def test_every_address_in_an_argument_is_a_service_that_there_is_and_may_be_reached(overlay: str) -> None:
    (kafka,) = of_kind(overlay, "Kafka").values()
    services = {
        f"{name}:{port['port']}" for name, each in of_kind(overlay, "Service").items() for port in each["spec"]["ports"]
    }
    services |= {
        f"{kafka['metadata']['name']}-kafka-bootstrap:{listener['port']}"
        for listener in kafka["spec"]["kafka"]["listeners"]
    }
    reached = {
        str(port["port"]) for policy in of_kind(overlay, "NetworkPolicy").values()
        for rule in policy["spec"].get("egress", []) for port in rule["ports"]
    }  # fmt: skip
    for name, container, _ in containers(overlay):
        if name in ROLES:
            options = parsed(container["args"])
            for place in filter(None, (options.get("mqtt"), options["kafka"])):
                place = place.rpartition("://")[2]
                assert place in services
                assert place.rpartition(":")[2] in reached or "mosquitto" in place
    for scaled in of_kind(overlay, "ScaledObject").values():
        for trigger in scaled["spec"]["triggers"]:
            if trigger["type"] == "kafka":
                assert trigger["metadata"]["bootstrapServers"] in services


@each_overlay
def test_kafka_has_our_topics_three_times_and_confirms_what_two_nodes_have(overlay: str) -> None:
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
    for name, spec in pointillist_topics(12, 3).items():
        found = topics[name]["spec"]
        assert (found["partitions"], found["replicas"]) == (spec.partitions, 3)
        assert {key: str(value) for key, value in found["config"].items()} == spec.settings() | {
            "min.insync.replicas": "2"
        }
    for each in (*topics.values(), nodes, *of_kind(overlay, "KafkaUser").values()):
        assert each["metadata"]["labels"]["strimzi.io/cluster"] == kafka["metadata"]["name"]


@each_overlay
def test_processors_are_scaled_by_the_lag_of_their_group_up_to_one_for_each_partition(overlay: str) -> None:
    scaled = of_kind(overlay, "ScaledObject")["processor"]["spec"]
    (trigger,) = scaled["triggers"]
    assert trigger["metadata"]["consumerGroup"] == PROCESSORS_GROUP
    assert trigger["metadata"]["topic"] == KafkaTopic.FRAMES
    frames = of_kind(overlay, "KafkaTopic")[KafkaTopic.FRAMES]["spec"]["partitions"]
    assert 1 <= scaled["minReplicaCount"] <= scaled["maxReplicaCount"] <= frames
    for each in of_kind(overlay, "ScaledObject").values():
        target = of_kind(overlay, "Deployment")[each["spec"]["scaleTargetRef"]["name"]]
        assert "replicas" not in target["spec"], "two would decide how many there are"


@each_overlay
def test_prometheus_scrapes_every_role_under_the_names_that_rules_and_dashboards_use(overlay: str) -> None:
    (monitor,) = of_kind(overlay, "PodMonitor").values()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["honorLabels"] is True
    assert {"targetLabel": "job", "replacement": "pointillist"} in endpoint["relabelings"]
    assert all(
        endpoint["port"] in names_of_ports(container) for name, container, _ in containers(overlay) if name in ROLES
    )


@each_overlay
def test_dashboards_rules_and_settings_come_from_where_the_other_deployments_have_them(overlay: str) -> None:
    maps = of_kind(overlay, "ConfigMap")
    for file in sorted((ROOT / "infra" / "grafana" / "dashboards").glob("*.json")):
        made = maps[f"dashboard-{file.stem}"]
        assert made["data"] == {file.name: file.read_text()}
        assert made["metadata"]["labels"] == {"grafana_dashboard": "1"}
        assert len(file.read_bytes()) < 2**20, "the most that a ConfigMap holds"
    rules = {file.name: file.read_text() for file in (ROOT / "infra" / "prometheus" / "rules").glob("*.yml")}
    assert maps["alert-rules"]["data"] == rules
    routes = ROOT / "infra" / "alertmanager" / "alertmanager.yml"
    assert maps["alertmanager"]["data"] == {routes.name: routes.read_text()}
    used = {
        volume["configMap"]["name"] for _, _, spec in containers(overlay) for volume in spec["volumes"]
        if "configMap" in volume
    }  # fmt: skip
    # What is revoked changes without us: applied again, it would be forgotten.
    assert used - maps.keys() == {"generations"}


@each_overlay
def test_processors_trust_whom_the_config_map_names_and_nobody_yet(overlay: str, tmp_path: Path) -> None:
    (_, container, _) = next(each for each in containers(overlay) if each[0] == "processor")
    named = Path(parsed(container["args"])["trust"])
    text = of_kind(overlay, "ConfigMap")["trusted-signers"]["data"][named.name]
    (tmp_path / named.name).write_text(text)
    TrustedSigners.read(tmp_path / named.name)
    assert all(line.startswith("#") for line in text.splitlines())


def test_the_overlays_differ_in_the_device_of_the_processors() -> None:
    devices, limits = {}, {}
    for overlay in OVERLAYS:
        container = next(each for name, each, _ in containers(overlay) if name == "processor")
        devices[overlay] = parsed(container["args"])["device"]
        limits[overlay] = container["resources"]["limits"].get("nvidia.com/gpu")
    assert devices == {"cpu": "cpu", "gpu": "cuda"}
    assert limits == {"cpu": None, "gpu": "1"}


@each_overlay
def test_all_roles_run_one_image_that_the_overlay_names(overlay: str) -> None:
    images = {container["image"] for name, container, _ in containers(overlay) if name in ROLES}
    assert images == {"registry.example/pointillist:0.1.0"}
    assert {identity(each)[0] for each in OVERLAYS[overlay] if each["metadata"].get("namespace") != "pointillist"} == {
        "Namespace"
    }


def test_the_bundle_of_the_processor_is_shipped() -> None:
    container = next(each for name, each, _ in containers("cpu") if name == "processor")
    assert (ROOT / "bundles" / str(parsed(container["args"])["bundle"])).is_dir()
    assert os.fspath(parsed(container["args"])["model_cache"])

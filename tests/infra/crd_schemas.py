"""Schemas of the operators' resources. `python -m tests.infra.crd_schemas` writes `tests/infra/crds/` again.

The schemas come from the CustomResourceDefinitions that KEDA and the Prometheus operator publish in their Go modules.
Descriptions are left out, and unknown fields are rejected, as `kubectl apply --validate=strict` rejects them. Strimzi
publishes no definitions in a registry. Its Java classes, from which it generates them, give the fields, the values of
enumerations, and the kinds of listeners, storage and rights. Types of Kubernetes inside a schema are not checked. The
program needs Go, Maven, Java and their registries.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import yaml

FOLDER: Final = Path(__file__).parent / "crds"
# Module, version, folder of its definitions, and the names of the definitions that we use.
SOURCES: Final = (
    ("github.com/kedacore/keda/v2", "v2.18.1", "config/crd/bases",
     ("keda.sh_scaledobjects", "keda.sh_triggerauthentications")),
    ("github.com/prometheus-operator/prometheus-operator", "v0.83.0", "example/prometheus-operator-crd",
     ("monitoring.coreos.com_podmonitors", "monitoring.coreos.com_prometheusrules")),
)  # fmt: skip
STRIMZI: Final = "0.49.0"
_MODELS: Final = "io.strimzi.api.kafka.model."
_CLASSES: Final = ("kafka.Kafka", "nodepool.KafkaNodePool", "topic.KafkaTopic", "user.KafkaUser")
_POM: Final = """<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion><groupId>crds</groupId><artifactId>crds</artifactId><version>1</version>
<dependencies><dependency><groupId>io.strimzi</groupId><artifactId>api</artifactId><version>{}</version></dependency>
</dependencies></project>"""


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a structural schema as JSON Schema that rejects unknown fields. Descriptions are left out."""
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            result[key] = {name: strict(each) for name, each in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            result[key] = strict(value)
        elif key == "pattern":
            result[key] = value.replace("^(?i)", "(?i)^")  # Go accepts a flag anywhere, Python only at the start
        elif key not in ("description", "format") and not key.startswith("x-"):
            result[key] = value
    if schema.get("x-kubernetes-int-or-string"):
        result.pop("type", None)
    open_ended = "additionalProperties" in result or schema.get("x-kubernetes-preserve-unknown-fields")
    if "properties" in result and not open_ended:
        result["additionalProperties"] = False
    return result


def download_module(module: str, version: str) -> tuple[Path, str]:
    """Download a Go module. Return its folder and its checksum."""
    done = subprocess.run(["go", "mod", "download", "-json", f"{module}@{version}"], check=True, capture_output=True)
    found = json.loads(done.stdout)
    return Path(found["Dir"]), str(found["Sum"])


def strimzi_schemas() -> dict[str, Any]:
    """Return the schemas of Strimzi's kinds by name, with the schemas that they refer to under `$defs`."""
    with tempfile.TemporaryDirectory() as folder:
        pom = Path(folder) / "pom.xml"
        pom.write_text(_POM.format(STRIMZI))
        fetch = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={folder}/jars"]
        subprocess.run(fetch, check=True)
        program = Path(__file__).with_name("StrimziSchemas.java")
        command = ["java", "-cp", f"{folder}/jars/*", str(program), *(_MODELS + name for name in _CLASSES)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def write(name: str, document: dict[str, Any]) -> None:
    """Write one file of `crds/`."""
    (FOLDER / f"{name}.json").write_text(json.dumps(document, separators=(",", ":")) + "\n")
    sys.stdout.write(f"{FOLDER / name}.json\n")


def read_schemas() -> dict[tuple[str, str], dict[str, Any]]:
    """Return the contents of `crds/`: version and schema by group and kind."""
    found = {}
    for file in sorted(FOLDER.glob("*.json")):
        document = json.loads(file.read_text())
        for kind, schema in document["kinds"].items():
            whole = schema | {"$defs": document["$defs"]} if "$defs" in document else schema
            found[document["group"], kind] = {"version": document["version"], "schema": whole}
    return found


def main() -> None:
    """Fetch the definitions and write a schema for each."""
    FOLDER.mkdir(exist_ok=True)
    for module, version, folder, names in SOURCES:
        place, checksum = download_module(module, version)
        for name in names:
            definition = yaml.safe_load((place / folder / f"{name}.yaml").read_text())["spec"]
            (stored_version,) = (each for each in definition["versions"] if each["storage"])
            schema = strict(stored_version["schema"]["openAPIV3Schema"])
            # The definition leaves the form of the metadata to Kubernetes.
            schema["properties"]["metadata"] = {"type": "object"}
            source = f"{module} {version} {checksum}, Apache License 2.0, {folder}/{name}.yaml without words"
            kinds = {definition["names"]["kind"]: schema}
            group = definition["group"]
            write(name, {"$comment": source, "group": group, "version": stored_version["name"], "kinds": kinds})
    found = strimzi_schemas()
    source = f"io.strimzi:api:{STRIMZI}, Apache License 2.0: the fields of its classes"
    defined = found.pop("$defs")
    write("kafka.strimzi.io", {
        "$comment": source, "group": "kafka.strimzi.io", "version": "v1", "kinds": found, "$defs": defined
    })  # fmt: skip


if __name__ == "__main__":
    main()

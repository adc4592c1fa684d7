"""Schemas of the operators' resources: `python -m tests.infra.crd_schemas` makes `tests/infra/crds/` anew.

They are taken from the CustomResourceDefinitions that KEDA and the Prometheus operator publish in their Go modules,
without the descriptions and with unknown fields refused, as `kubectl apply --validate=strict` does. Needs Go and the
module proxy.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import yaml

FOLDER: Final = Path(__file__).parent / "crds"
# Module, version, folder of its definitions, and those that are used here.
SOURCES: Final = (
    ("github.com/kedacore/keda/v2", "v2.18.1", "config/crd/bases",
     ("keda.sh_scaledobjects", "keda.sh_triggerauthentications")),
    ("github.com/prometheus-operator/prometheus-operator", "v0.83.0", "example/prometheus-operator-crd",
     ("monitoring.coreos.com_podmonitors",)),
)  # fmt: skip


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """A structural schema as JSON Schema that refuses fields it does not name, without words for people."""
    made: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            made[key] = {name: strict(each) for name, each in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            made[key] = strict(value)
        elif key not in ("description", "format") and not key.startswith("x-"):
            made[key] = value
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
    open_ended = "additionalProperties" in made or schema.get("x-kubernetes-preserve-unknown-fields")
    if "properties" in made and not open_ended:
        made["additionalProperties"] = False
    return made


def fetched(module: str, version: str) -> tuple[Path, str]:
    """Where Go keeps a module, and its checksum."""
    done = subprocess.run(["go", "mod", "download", "-json", f"{module}@{version}"], check=True, capture_output=True)
    found = json.loads(done.stdout)
    return Path(found["Dir"]), str(found["Sum"])


def main() -> None:
    """Fetch the definitions and write a schema for each."""
    FOLDER.mkdir(exist_ok=True)
    for module, version, folder, names in SOURCES:
        place, checksum = fetched(module, version)
        for name in names:
            definition = yaml.safe_load((place / folder / f"{name}.yaml").read_text())["spec"]
            (served,) = (each for each in definition["versions"] if each["storage"])
            schema = strict(served["schema"]["openAPIV3Schema"])
            # What the definition leaves to Kubernetes itself.
            schema["properties"]["metadata"] = {"type": "object"}
            document = {
                "$comment": f"{module} {version} {checksum}, Apache License 2.0, {folder}/{name}.yaml without words",
                "group": definition["group"], "kind": definition["names"]["kind"], "version": served["name"],
                "schema": schema,
            }  # fmt: skip
            (FOLDER / f"{name}.json").write_text(json.dumps(document, separators=(",", ":")) + "\n")
            sys.stdout.write(f"{FOLDER / name}.json\n")


if __name__ == "__main__":
    main()

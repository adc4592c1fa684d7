"""A partial `kustomize build FOLDER`: the features that `infra/kubernetes` uses. Any other feature raises ValueError.

Supported are resources, components, JSON patches (RFC 6902: add, replace, remove) with a target of kind and name,
ConfigMaps generated without a hash in the name, one namespace, and images by name. Files above the folder are rejected,
as kustomize rejects them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.infra.alert_rules import documents

Resource = dict[str, Any]
_FEATURES = {
    "apiVersion", "kind", "namespace", "resources", "components", "patches", "configMapGenerator", "generatorOptions",
    "images",
}  # fmt: skip
_CLUSTER_WIDE = {"Namespace"}


def build(folder: Path) -> list[Resource]:
    """Return every resource of the kustomization in `folder`. Raises ValueError if kustomize would reject it."""
    return _build(folder, [])


def _build(folder: Path, before: list[Resource]) -> list[Resource]:
    document = next(documents((folder / "kustomization.yaml").read_text()))
    unknown = set(document) - _FEATURES
    if unknown:
        raise ValueError(f"{folder}: expected features that this stand-in supports, got {sorted(unknown)}")
    found = list(before)
    for name in document.get("resources", []):
        place = folder / name
        if place.is_dir():
            found += build(place)
        else:
            found += [each for each in documents(_file_inside(folder, name).read_text()) if each is not None]
    found += [
        _config_map(folder, each, document.get("generatorOptions", {}))
        for each in document.get("configMapGenerator", [])
    ]
    for name in document.get("components", []):
        found = _build(folder / name, found)
    for patch in document.get("patches", []):
        _patch(folder, found, patch)
    for resource in found:
        if "namespace" in document and resource["kind"] not in _CLUSTER_WIDE:
            resource["metadata"]["namespace"] = document["namespace"]
        for image in document.get("images", []):
            _rename(resource, image)
    names = [identity(resource) for resource in found]
    if len(set(names)) != len(names):
        raise ValueError(f"{folder}: expected each resource once, got {sorted(names)}")
    return found


def identity(resource: Resource) -> tuple[str, str]:
    """Return the kind and the name of a resource."""
    return resource["kind"], resource["metadata"]["name"]


def _file_inside(folder: Path, name: str) -> Path:
    file = (folder / name).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise ValueError(f"{folder}: expected a file in it or below, got {name}")
    return file


def _config_map(folder: Path, generator: dict[str, Any], general: dict[str, Any]) -> Resource:
    options = general | generator.get("options", {})
    if set(generator) - {"name", "files", "options"} or not options.get("disableNameSuffixHash"):
        raise ValueError(f"{folder}: expected files and disableNameSuffixHash in {generator['name']}")
    metadata: dict[str, Any] = {"name": generator["name"]}
    if "labels" in options:
        metadata["labels"] = dict(options["labels"])
    files = [_file_inside(folder, name) for name in generator["files"]]
    data = {file.name: file.read_text() for file in files}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _patch(folder: Path, found: Iterable[Resource], patch: dict[str, Any]) -> None:
    wanted = patch["target"]
    targets = [each for each in found if identity(each) == (wanted["kind"], wanted["name"])]
    if len(targets) != 1 or set(patch) - {"target", "path", "patch"}:
        raise ValueError(f"{folder}: expected a patch of one resource, got {wanted}")
    text = patch["patch"] if "patch" in patch else _file_inside(folder, patch["path"]).read_text()
    for step in next(documents(text)):
        _apply(targets[0], step)


def _apply(resource: Resource, step: dict[str, Any]) -> None:
    *path, last = [part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:]]
    place: Any = resource
    for part in path:
        place = place[int(part)] if isinstance(place, list) else place[part]
    key: Any = last
    if isinstance(place, list):
        key = len(place) if last == "-" else int(last)
        if key > len(place) - (step["op"] != "add"):
            raise ValueError(f"expected {step['path']} in the list")
    elif step["op"] != "add" and last not in place:
        raise ValueError(f"expected an existing {step['path']}, got none")
    match step["op"]:
        case "add" if isinstance(place, list):
            place.insert(key, step["value"])
        case "add" | "replace":
            place[key] = step["value"]
        case "remove":
            del place[key]
        case other:
            raise ValueError(f"expected add, replace or remove, got {other}")


def _rename(node: Any, image: dict[str, str]) -> None:
    if isinstance(node, dict):
        name, _, tag = str(node.get("image", "")).partition(":")
        if name == image["name"]:
            new_tag = image.get("newTag", tag)
            node["image"] = image.get("newName", name) + (f":{new_tag}" if new_tag else "")
        for each in node.values():
            _rename(each, image)
    elif isinstance(node, list):
        for each in node:
            _rename(each, image)

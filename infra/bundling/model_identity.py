"""The check that one model id stands for one way to decide verdicts.

The id covers weights, temperature, groups and stages. Classes, input, output, factory and code decide verdicts too, and
it does not cover them: with a `version` of its own, a corrected bundle has an id of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from processors.bundle import read_settings
from processors.models.store import bundle_files, published_settings
from schemas.errors import BundleError
from schemas.messages.models import bundle_digest
from schemas.pointillist_pb2 import BundleFile, Model

_DECIDING: Final = ("classes", "input", "output", "format", "factory", "factory_arguments")
"""Keys of `model.toml` that decide verdicts and are not part of the id."""
_SETTINGS: Final = "model.toml"


def check_identity(folder: Path, model_id: str, published: Iterable[Model]) -> None:
    """Check the bundle in `folder` against the published models of the same id. Raises BundleError if they differ.

    Other thresholds of STRIP and another drift reference are allowed: the classes and their confidence stay.
    """
    files = bundle_files(folder)
    digest = bundle_digest(files)
    for model in published:
        if model.model_id == model_id and model.digest != digest and (changed := _changed(folder, files, model)):
            raise BundleError(
                f"bundle: expected a model id of its own, got {model_id}, which is published with another {changed}. "
                "Raise version in model.toml: verdicts name their model by this id."
            )


def _changed(folder: Path, files: Iterable[BundleFile], model: Model) -> str:
    """Return the part that decides verdicts and differs from a published model; empty if none does."""
    ours, theirs = _digests(files), _digests(model.files)
    for name in sorted(ours.keys() | theirs.keys()):
        if name.endswith(".py") and ours.get(name) != theirs.get(name):
            return name
    if ours[_SETTINGS] == theirs.get(_SETTINGS):
        return ""
    after, before = read_settings(folder), published_settings(model)
    return next((name for name in _DECIDING if getattr(after, name) != getattr(before, name)), "")


def _digests(files: Iterable[BundleFile]) -> dict[str, bytes]:
    return {file.name: file.sha256 for file in files}

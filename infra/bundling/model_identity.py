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

    Other thresholds of STRIP and another drift reference are allowed: the classes and their confidence stay. A model
    whose `model.toml` the store no longer returns, or that no release reads any more, is not compared.
    """
    files = bundle_files(folder)
    others = [model for model in published if model.model_id == model_id]
    digest = bundle_digest(files)
    if any(model.digest == digest for model in others):
        return  # it is published already
    for model in others:
        if changed := _changed(folder, files, model):
            raise BundleError(
                f"bundle: expected a model id of its own, got {model_id}, a published model that differs in {changed}. "
                "Raise version in model.toml, or choose another name: verdicts name their model by this id."
            )


def _changed(folder: Path, files: Iterable[BundleFile], model: Model) -> str:
    """Return the part that decides verdicts and differs from a published model; empty if none does."""
    ours, theirs = _digests(files), _digests(model.files)
    for name in sorted(ours.keys() | theirs.keys()):
        if name.endswith(".py") and ours.get(name) != theirs.get(name):
            return name
    if ours[_SETTINGS] == theirs.get(_SETTINGS):
        return ""
    after = read_settings(folder)
    try:
        before = published_settings(model)
    except BundleError:  # the store fails, or the file is of another release
        return ""
    return next((name for name in _DECIDING if getattr(after, name) != getattr(before, name)), "")


def _digests(files: Iterable[BundleFile]) -> dict[str, bytes]:
    return {file.name: file.sha256 for file in files}

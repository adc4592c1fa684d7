"""The choice of the live model: the records of the compacted topic `pointillist.models.v1`.

The record under `LIVE_KEY` holds the most recently published models, newest first. Publishing puts a model in front; a
rollback withdraws the live one. The first model that is not withdrawn is live.

A bundle is code that processors run. The record therefore names the digest of every file. The last editor signs the
record, and the publisher of a bundle signs the bundle.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from copy import deepcopy
from hashlib import sha256
from typing import Final
from unicodedata import category

from google.protobuf.message import DecodeError

from schemas.errors import BadTagError, MalformedError
from schemas.keys.signers import SignaturePurpose, Signer, TrustedSigners
from schemas.pointillist_pb2 import BundleFile, Model, Models, SignedModels

LIVE_KEY: Final = b"live"
PROCESSOR_PREFIX: Final = "processor/"
"""Prefix of the processor's name in the key of a ServedModel."""
DRIFT_WINDOWS: Final = 3
"""Windows of frames in succession that must exceed the limit of the drift statistics."""

MAX_PUBLISHED: Final = 16
"""Maximum number of published models in the list, withdrawn ones included: it limits how far a rollback can go."""
MAX_FILES: Final = 256
MAX_BUNDLE_BYTES: Final = 2 * 2**30
MAX_NAME: Final = 200


def seal(models: Models, signer: Signer) -> bytes:
    """Return the record's value."""
    body = models.SerializeToString()
    signature = signer.sign(SignaturePurpose.MODELS, body)
    return SignedModels(models=body, signer=signer.public, signature=signature).SerializeToString()


def unseal(value: bytes, trusted: TrustedSigners) -> Models:
    """Read a record's value. Raises BadTagError unless a trusted signer made it, MalformedError for a bad value."""
    try:
        signed = SignedModels.FromString(value)
        trusted.verify(SignaturePurpose.MODELS, signed.models, signed.signer, signed.signature)
        models = Models.FromString(signed.models)
    except DecodeError as error:
        raise MalformedError(f"expected a list of models: {error}") from None
    except BadTagError as error:
        raise BadTagError(f"the list of models: {error}") from None
    for model in models.published:
        _check(model)
    if models.HasField("rollout"):
        _check(models.rollout.candidate)
        for share in (models.rollout.frames, models.rollout.cameras):
            if not 0 <= share <= 1:  # NaN included
                raise MalformedError(f"rollout: expected shares from 0 to 1, got {share}")
    return models


def claimed(value: bytes) -> str:
    """Return the digest of the model that a record calls live, unverified; empty if there is none."""
    try:
        model = live(Models.FromString(SignedModels.FromString(value).models))
    except DecodeError:
        return ""
    return model.digest if model is not None else ""


def sign(model: Model, signer: Signer) -> Model:
    """Return the model with a signature of `signer` over the digest of all its files."""
    signed = deepcopy(model)
    signed.signer, signed.signature = signer.public, signer.sign(SignaturePurpose.BUNDLE, model.digest.encode())
    return signed


def check_signature(model: Model, trusted: TrustedSigners) -> str:
    """Return the name of the signer of the model's files. Raises BadTagError unless a trusted signer signed them."""
    return trusted.verify(SignaturePurpose.BUNDLE, model.digest.encode(), model.signer, model.signature)


def _check(model: Model) -> None:
    names = [file.name for file in model.files]
    if not 1 <= len(names) <= MAX_FILES or len(set(names)) != len(names) or not all(map(is_inside, names)):
        raise MalformedError(
            f"{model.model_id}: expected 1 to {MAX_FILES} names of files inside the bundle, "
            f"without control characters, got {names[:5]}"
        )
    if sum(file.size for file in model.files) > MAX_BUNDLE_BYTES:
        raise MalformedError(f"{model.model_id}: expected at most {MAX_BUNDLE_BYTES} bytes")
    if model.digest != bundle_digest(model.files):
        raise MalformedError(f"{model.model_id}: the digest is not that of its files")


def is_inside(name: str) -> bool:
    """Return whether a file name is a relative path that stays inside the bundle, without control characters.

    With a line break in names, two bundles could have the same digest.
    """
    plain = 0 < len(name) <= MAX_NAME and "\\" not in name and all(category(each) != "Cc" for each in name)
    return (
        plain
        and not name.startswith("/")
        and not name.startswith("../")
        and name != ".."
        and posixpath.normpath(name) == name
        and name != "."
    )


def bundle_digest(files: Iterable[BundleFile]) -> str:
    """Return the SHA-256 in hexadecimal over the digest, size and name of each file, sorted by name."""
    lines = sorted((file.name, f"{file.sha256.hex()} {file.size} {file.name}\n") for file in files)
    return sha256("".join(line for _, line in lines).encode()).hexdigest()


def standing(models: Models) -> list[Model]:
    """Return the published models that were not withdrawn, newest first."""
    return [model for model in models.published if not model.withdrawn_ms]


def live(models: Models) -> Model | None:
    """Return the live model; None if each processor serves its own bundle."""
    return next(iter(standing(models)), None)


def publish(models: Models, model: Model) -> Models:
    """Return the list with `model` in front, cut to `MAX_PUBLISHED`: the oldest withdrawn models go first."""
    kept = [model, *models.published]
    while len(kept) > MAX_PUBLISHED:
        oldest = next((place for place in reversed(range(len(kept))) if kept[place].withdrawn_ms), -1)
        del kept[oldest]
    return Models(published=kept)


def withdraw(models: Models, now_ms: int, *, everything: bool = False) -> Models:
    """Return the list without its live model; with `everything`, without all models. An empty list does not change."""
    changed = deepcopy(models)
    for model in standing(changed) if everything else standing(changed)[:1]:
        model.withdrawn_ms = now_ms
    return changed

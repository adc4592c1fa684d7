"""Which model is live: the records of the compacted topic `pointillist.models.v1`.

The record under `LIVE_KEY` holds all that was published lately, newest first. To publish is to put a model in front, to
roll back is to withdraw the live one: whichever comes next and stands is live. A bundle is code that processors run, so
that record names the digest of every file and is signed by who changed it last; each bundle, by who published it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

from google.protobuf.message import DecodeError

from schemas.errors import BadTag, Malformed
from schemas.pointillist_pb2 import BundleFile, Model, Models, SignedModels
from schemas.signers import Signed, Signer, TrustedSigners

LIVE_KEY: Final = b"live"
PROCESSOR_PREFIX: Final = "processor/"
"""Before the name of the processor in the key of a ServedModel."""

MAX_PUBLISHED: Final = 16
"""Models that are remembered: so far can be rolled back."""
MAX_FILES: Final = 256
MAX_BUNDLE_BYTES: Final = 2 * 2**30
MAX_NAME: Final = 200


def seal(models: Models, signer: Signer) -> bytes:
    """The record's value."""
    body = models.SerializeToString()
    signature = signer.sign(Signed.MODELS, body)
    return SignedModels(models=body, signer=signer.public, signature=signature).SerializeToString()


def unseal(value: bytes, trusted: TrustedSigners) -> Models:
    """Read a record's value. Raises BadTag unless a trusted signer made it, Malformed when it says what cannot be."""
    try:
        signed = SignedModels.FromString(value)
        try:
            trusted.verify(Signed.MODELS, signed.models, signed.signer, signed.signature)
        except BadTag as error:
            raise BadTag(f"the list of models: {error}") from None
        models = Models.FromString(signed.models)
    except DecodeError as error:
        raise Malformed(f"expected a list of models: {error}") from None
    for model in models.published:
        _check(model)
    return models


def claimed(value: bytes) -> str:
    """The digest of the model that a record calls live, whoever wrote it; empty when it is none, or no record."""
    try:
        model = live(Models.FromString(SignedModels.FromString(value).models))
    except DecodeError:
        return ""
    return model.digest if model is not None else ""


def sign(model: Model, signer: Signer) -> Model:
    """The model as one that `signer` vouches for: a signature over the digest of all its files."""
    signed = Model()
    signed.CopyFrom(model)
    signed.signer, signed.signature = signer.public, signer.sign(Signed.BUNDLE, model.digest.encode())
    return signed


def check_signature(model: Model, trusted: TrustedSigners) -> str:
    """The name of who vouches for the model's files. Raises BadTag when nobody does who is trusted."""
    return trusted.verify(Signed.BUNDLE, model.digest.encode(), model.signer, model.signature)


def _check(model: Model) -> None:
    names = [file.name for file in model.files]
    if not 1 <= len(names) <= MAX_FILES or len(set(names)) != len(names) or not all(map(is_inside, names)):
        raise Malformed(
            f"{model.model_id}: expected 1 to {MAX_FILES} names of files inside the bundle, got {names[:5]}"
        )
    if sum(file.size for file in model.files) > MAX_BUNDLE_BYTES:
        raise Malformed(f"{model.model_id}: expected at most {MAX_BUNDLE_BYTES} bytes")
    if model.digest != bundle_digest(model.files):
        raise Malformed(f"{model.model_id}: the digest is not that of its files")


def is_inside(name: str) -> bool:
    """Whether a name of a file is a plain relative path that leads nowhere else."""
    plain = bool(name) and len(name) <= MAX_NAME and "\\" not in name and "\0" not in name
    return (
        plain
        and not name.startswith("/")
        and not name.startswith("../")
        and name != ".."
        and posixpath.normpath(name) == name
        and name != "."
    )


def bundle_digest(files: Iterable[BundleFile]) -> str:
    """SHA-256 in hexadecimal over the digest, size and name of each file, sorted by name."""
    lines = sorted((file.name, f"{file.sha256.hex()} {file.size} {file.name}\n") for file in files)
    return sha256("".join(line for _, line in lines).encode()).hexdigest()


def standing(models: Models) -> list[Model]:
    """What was published and not withdrawn, newest first."""
    return [model for model in models.published if not model.withdrawn_ms]


def live(models: Models) -> Model | None:
    """The live model; None when each processor serves its own bundle."""
    return next(iter(standing(models)), None)


def publish(models: Models, model: Model) -> Models:
    """The list with `model` in front, the oldest forgotten beyond `MAX_PUBLISHED`."""
    return Models(published=[model, *models.published][:MAX_PUBLISHED])


def withdraw(models: Models, now_ms: int, *, everything: bool = False) -> Models:
    """The list without its live model, or without any that stands. Nothing changes when none stands."""
    changed = Models()
    changed.CopyFrom(models)
    for model in standing(changed) if everything else standing(changed)[:1]:
        model.withdrawn_ms = now_ms
    return changed

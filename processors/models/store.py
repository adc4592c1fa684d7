"""Published bundles: one folder for each content in a store, and copies of them in a processor's cache.

A store is a folder or a URL that fsspec opens. A bundle's folder in it is named by the digest of its files, and never
changes. A reader first checks the signature of the bundle, then the digest of every file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

import fsspec  # type: ignore[import-untyped]  # it has no type annotations

from processors.bundle import BundleSettings, read_settings
from schemas.clock import unix_ms
from schemas.errors import BadTagError, BundleError, ConfigError, typed_text
from schemas.keys.signers import TrustedSigners
from schemas.messages.models import MAX_BUNDLE_BYTES, MAX_FILES, bundle_digest, check_signature, is_inside
from schemas.pointillist_pb2 import BundleFile, Model
from schemas.transport.object_store import open_store

CACHED: Final = 8
"""Number of bundles that a cache keeps, the last used ones."""
_CHUNK: Final = 2**20
_ABANDONED_S: Final = 86_400.0
"""Seconds after which a half-fetched copy is one that nobody finishes."""


class PassingBundleError(BundleError):
    """A fault that is not the bundle's: a retry may help."""


class StoreUnavailableError(PassingBundleError):
    """The store does not return a file."""


class UntrustedBundleError(PassingBundleError):
    """No trusted signer vouches for a bundle."""


def bundle_files(folder: Path) -> list[BundleFile]:
    """Return the files of a bundle with their digests: all in the folder except hidden ones and Python's caches.

    Raises BundleError for no files, too many, too large or unreadable ones, and for a link: its target may be no part
    of the bundle.
    """
    files = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if any(part.startswith(".") or part == "__pycache__" for part in parts):
            continue
        if path.is_symlink():
            raise BundleError(f"{folder}: expected files, got the link {'/'.join(parts)}. Copy what it names.")
        if not path.is_file():
            continue
        name = "/".join(parts)
        if not is_inside(name):
            raise BundleError(
                f"{folder}: expected names of files of at most 200 characters without control characters, got "
                f"{name[:80]!r}. Correct the folder."
            )
        try:
            with path.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").digest()
                files.append(BundleFile(name=name, size=opened.tell(), sha256=digest))
        except OSError as error:
            raise BundleError(
                f"{path}: expected a readable file, got {error.strerror}. Correct the file's rights."
            ) from error
    total = sum(file.size for file in files)
    if not 1 <= len(files) <= MAX_FILES or total > MAX_BUNDLE_BYTES:
        raise BundleError(
            f"{folder}: expected 1 to {MAX_FILES} files of at most {MAX_BUNDLE_BYTES} bytes together, got "
            f"{len(files)} of {total}. Correct the folder."
        )
    return files


class ModelStore:
    """The store to which `model publish` copies bundles."""

    def __init__(self, url: str) -> None:
        """`url` is a folder or a URL. Raises ConfigError if fsspec cannot open it, or it contains a password."""
        if "://" in url and urlsplit(url).password is not None:
            raise ConfigError(
                "the store: expected a URL without a password, got one. Remove it: the URL is written to Kafka."
            )
        self._files, root = open_store("the store", url)
        self._root = root.rstrip("/")

    def add(self, folder: Path, model_id: str) -> Model:
        """Copy the bundle in `folder`, which was loaded as `model_id`, to the store; existing files stay.

        Raises BundleError if the folder cannot be read or the store rejects the files.
        """
        settings = read_settings(folder)
        files = bundle_files(folder)
        digest = bundle_digest(files)
        place = f"{self._root}/{settings.name}-{digest[:32]}"
        try:
            for file in files:
                target = f"{place}/{file.name}"
                if not self._holds(target, file):
                    self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
                    self._files.put_file(str(folder / file.name), target)
        except Exception as error:  # each kind of store has its own errors
            raise BundleError(
                f"the store: expected it to accept {folder}, got {typed_text(error)}. "
                "Correct its address or its rights."
            ) from error
        location = self._files.unstrip_protocol(place)
        return Model(
            model_id=model_id,
            location=location,
            published_ms=unix_ms(),
            digest=digest,
            files=files,
            classes=settings.classes,
            strip=settings.strip is not None,
        )

    def _holds(self, target: str, file: BundleFile) -> bool:
        if not self._files.exists(target) or self._files.size(target) != file.size:
            return False
        with self._files.open(target, "rb") as opened:
            return _copy(opened.read, lambda _: None, file.size) == file.sha256

    def discard(self, model: Model) -> None:
        """Remove a bundle from this store; ignore one that is elsewhere, or already removed."""
        place = str(self._files._strip_protocol(model.location))
        with suppress(OSError):
            if place.rpartition("/")[0] == self._root:
                self._files.rm(place, recursive=True)


def fetch_bundle(model: Model, cache: Path, trusted: TrustedSigners) -> Path:
    """Return the folder in `cache` with the files of a published bundle; fetch missing files, and check all.

    Raises UntrustedBundleError, before any fetch, unless a trusted signer vouches for the bundle. Raises
    StoreUnavailableError if the store does not return the files, BundleError if they differ from the published ones.
    """
    try:
        check_signature(model, trusted)
    except BadTagError as error:
        raise UntrustedBundleError(f"{model.model_id}: {error}") from None
    folder = cache / model.digest
    if folder.is_dir() and _is_whole(folder, model.digest):
        os.utime(folder)
        return folder
    partial = cache / f".{model.digest}.{uuid4().hex}"
    try:
        partial.mkdir(parents=True)
        for file in model.files:
            _fetch(model, file, partial / file.name)
        _put(partial, folder, model)
    except OSError as error:
        raise StoreUnavailableError(f"{model.model_id}: cannot keep a copy in {cache}: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _remove_oldest(cache, folder)
    return folder


def _put(partial: Path, folder: Path, model: Model) -> None:
    try:
        partial.rename(folder)
    except OSError:
        # Another processor with the same cache was faster, and may be reading the copy: only a damaged one is replaced.
        if _is_whole(folder, model.digest):
            return
        damaged = partial.with_name(f"{partial.name}.damaged")
        folder.rename(damaged)
        partial.rename(folder)
        shutil.rmtree(damaged, ignore_errors=True)


def published_settings(model: Model) -> BundleSettings:
    """Return the `model.toml` of a published bundle.

    Raises StoreUnavailableError if the store does not return it, BundleError if it differs from the published one.
    """
    with TemporaryDirectory(prefix="pointillist-settings-") as place:
        for file in model.files:
            if file.name == "model.toml":
                _fetch(model, file, Path(place) / file.name)
        return read_settings(Path(place))


def _fetch(model: Model, file: BundleFile, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as kept:
        try:
            with fsspec.open(f"{model.location}/{file.name}", "rb") as opened:
                digest = _copy(opened.read, kept.write, file.size)
        except Exception as error:  # each kind of store has its own errors
            raise StoreUnavailableError(
                f"{model.model_id}: cannot fetch {file.name} from {model.location}: {typed_text(error)}"
            ) from error
    if digest != file.sha256:
        raise BundleError(
            f"{model.model_id}: expected {file.name} as it was published, got another file in "
            f"{model.location}. Publish the bundle again."
        )


def _copy(read: Callable[[int], bytes], write: Callable[[bytes], object], size: int) -> bytes:
    """Copy `size` bytes, and one more if there is one; return the digest of the copied bytes."""
    digest = hashlib.sha256()
    left = size + 1
    while left > 0 and (chunk := read(min(_CHUNK, left))):
        digest.update(chunk)
        write(chunk)
        left -= len(chunk)
    return digest.digest()


def has_bundle(cache: Path) -> bool:
    """Return whether `cache` has a folder with all files of the published bundle that it is named by."""
    try:
        return any(path.is_dir() and _is_whole(path, path.name) for path in cache.iterdir())
    except OSError:
        return False


def _is_whole(folder: Path, digest: str) -> bool:
    try:
        return bundle_digest(bundle_files(folder)) == digest
    except BundleError:
        return False


def _remove_oldest(cache: Path, used: Path) -> None:
    """Remove the oldest copies, and the half-fetched ones of killed processes."""
    with suppress(OSError):
        for path in cache.glob(f".{'[0-9a-f]' * 64}.*"):
            if time.time() - path.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(path, ignore_errors=True)
        folders = [path for path in cache.iterdir() if path.is_dir() and path != used and not path.name.startswith(".")]
        for path in sorted(folders, key=lambda path: path.stat().st_mtime)[: max(0, len(folders) + 1 - CACHED)]:
            shutil.rmtree(path, ignore_errors=True)

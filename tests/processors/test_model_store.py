"""The store of published models and the cache of fetched ones."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from processors.models import store as model_store
from processors.models.store import (
    CACHED,
    ModelStore,
    StoreUnavailableError,
    UntrustedBundleError,
    bundle_files,
    fetch_bundle,
)
from schemas.errors import BundleError, ConfigError
from schemas.keys.signers import Signer
from schemas.messages.models import bundle_digest, sign
from schemas.pointillist_pb2 import Model
from tests.processors.tiny import CLASSES, SIGNER, TRUSTED, write_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = write_bundle(tmp_path / "bundle")
    (made / "code").mkdir()
    (made / "code" / "network.py").write_text("x = 1\n")
    (made / "__pycache__").mkdir()
    (made / "__pycache__" / "network.pyc").write_bytes(b"1")
    (made / ".hidden").write_text("1")
    return made


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_a_fetched_bundle_equals_the_published_one_after_the_original_is_deleted(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    store = ModelStore(str(tmp_path / "store") if kind == "folder" else f"memory://{tmp_path.name}")
    before = bundle_files(folder)
    model = sign(store.add(folder, "tiny@1+0"), SIGNER)
    assert list(model.classes) == list(CLASSES)
    assert model.location.startswith("file://" if kind == "folder" else "memory://")
    assert store.add(folder, "tiny@1+0").location == model.location
    shutil.rmtree(folder)
    fetched = fetch_bundle(model, tmp_path / "cache", TRUSTED)
    assert bundle_files(fetched) == before
    assert {file.name for file in before} == {
        "model.toml", "weights.safetensors", "overlays.npy", "code/network.py"
    }  # fmt: skip
    store.discard(model)
    assert fetch_bundle(model, tmp_path / "cache", TRUSTED) == fetched
    with pytest.raises(StoreUnavailableError, match="cannot fetch"):
        fetch_bundle(model, tmp_path / "other", TRUSTED)
    assert list((tmp_path / "other").iterdir()) == []


def test_a_copy_that_a_concurrent_fetch_has_written_is_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = sign(ModelStore(str(tmp_path / "store")).add(folder, "tiny@1+0"), SIGNER)
    fetch_file = model_store._fetch
    inodes: list[int] = []

    def late(*arguments: object) -> None:
        monkeypatch.setattr(model_store, "_fetch", fetch_file)
        inodes.append((fetch_bundle(model, tmp_path / "cache", TRUSTED) / "model.toml").stat().st_ino)
        fetch_file(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(model_store, "_fetch", late)
    fetched = fetch_bundle(model, tmp_path / "cache", TRUSTED)
    assert [(fetched / "model.toml").stat().st_ino] == inodes
    assert bundle_files(fetched) == list(model.files)
    assert list((tmp_path / "cache").iterdir()) == [fetched]


def test_a_failed_fetch_does_not_delete_the_files_of_a_concurrent_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = sign(ModelStore(str(tmp_path / "store")).add(folder, "tiny@1+0"), SIGNER)
    fetch_file = model_store._fetch

    def fail(*_: object) -> None:
        raise StoreUnavailableError("gone")

    def fetch_twice(*arguments: object) -> None:
        fetch_file(*arguments)  # type: ignore[arg-type]
        monkeypatch.setattr(model_store, "_fetch", fail)
        with pytest.raises(StoreUnavailableError, match="gone"):
            fetch_bundle(model, tmp_path / "cache", TRUSTED)
        monkeypatch.setattr(model_store, "_fetch", fetch_file)

    monkeypatch.setattr(model_store, "_fetch", fetch_twice)
    assert bundle_files(fetch_bundle(model, tmp_path / "cache", TRUSTED)) == list(model.files)


def test_partial_copies_of_killed_processes_are_removed_after_a_day(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    old, fresh, other = f".{'0a' * 32}.1", f".{'0a' * 32}.2", ".other"
    for name, age_s in ((old, 90_000), (fresh, 0), (other, 90_000)):
        (cache / name).mkdir(parents=True)
        os.utime(cache / name, (time.time() - age_s,) * 2)
    fetched = fetch_bundle(sign(ModelStore(str(tmp_path / "store")).add(folder, "tiny@1+0"), SIGNER), cache, TRUSTED)
    assert sorted(cache.iterdir()) == sorted([cache / fresh, cache / other, fetched])


def test_bundles_with_different_contents_have_different_folders(folder: Path, tmp_path: Path) -> None:
    store = ModelStore(str(tmp_path / "store"))
    first = sign(store.add(folder, "tiny@1+0"), SIGNER)
    (folder / "model.toml").write_text((folder / "model.toml").read_text().replace("0.01", "0.02"))
    second = sign(store.add(folder, "tiny@1+0"), SIGNER)
    assert first.digest != second.digest
    assert first.location != second.location
    assert fetch_bundle(first, tmp_path / "cache", TRUSTED) != fetch_bundle(second, tmp_path / "cache", TRUSTED)


def location(model: Model) -> Path:
    return Path(model.location.removeprefix("file://"))


@pytest.mark.parametrize("content", [b"other weights", b""])
def test_a_file_that_differs_from_the_published_one_is_rejected(folder: Path, tmp_path: Path, content: bytes) -> None:
    model = sign(ModelStore(str(tmp_path / "store")).add(folder, "tiny@1+0"), SIGNER)
    (location(model) / "weights.safetensors").write_bytes(content)
    with pytest.raises(BundleError, match="as it was published"):
        fetch_bundle(model, tmp_path / "cache", TRUSTED)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_file_longer_than_published_is_rejected(folder: Path, tmp_path: Path) -> None:
    model = sign(ModelStore(str(tmp_path / "store")).add(folder, "tiny@1+0"), SIGNER)
    weights = location(model) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes() + bytes(10))
    with pytest.raises(BundleError, match="as it was published"):
        fetch_bundle(model, tmp_path / "cache", TRUSTED)


def test_a_damaged_copy_is_fetched_again_and_publishing_again_repairs_a_damaged_store(
    folder: Path, tmp_path: Path
) -> None:
    store = ModelStore(str(tmp_path / "store"))
    model = sign(store.add(folder, "tiny@1+0"), SIGNER)
    copy = fetch_bundle(model, tmp_path / "cache", TRUSTED)
    (copy / "weights.safetensors").write_bytes(b"damaged")
    assert bundle_digest(bundle_files(fetch_bundle(model, tmp_path / "cache", TRUSTED))) == model.digest
    (location(model) / "overlays.npy").write_bytes(bytes((folder / "overlays.npy").stat().st_size))
    store.add(folder, "tiny@1+0")
    assert fetch_bundle(model, tmp_path / "another", TRUSTED).is_dir()


def test_a_cache_keeps_the_bundles_used_last(folder: Path, tmp_path: Path) -> None:
    store = ModelStore(str(tmp_path / "store"))
    cache = tmp_path / "cache"
    kept = []
    for number in range(CACHED + 2):
        (folder / "note").write_text(str(number))
        kept.append(fetch_bundle(sign(store.add(folder, "tiny@1+0"), SIGNER), cache, TRUSTED))
        os.utime(kept[-1], (number, number))
    assert sorted(path for path in cache.iterdir()) == sorted(kept[2:])


def test_a_bundle_that_is_used_again_stays_in_the_cache(folder: Path, tmp_path: Path) -> None:
    store, cache = ModelStore(str(tmp_path / "store")), tmp_path / "cache"
    models = []
    for number in range(CACHED + 1):
        (folder / "note").write_text(str(number))
        models.append(sign(store.add(folder, "tiny@1+0"), SIGNER))
    for number, model in enumerate(models[:CACHED]):
        os.utime(fetch_bundle(model, cache, TRUSTED), (number, number))
    again = fetch_bundle(models[0], cache, TRUSTED)
    fetch_bundle(models[CACHED], cache, TRUSTED)
    assert again.is_dir()
    assert not (cache / models[1].digest).exists()
    assert len(list(cache.iterdir())) == CACHED


def test_a_bundle_with_too_many_bytes_or_files_is_not_published(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    total, count = sum(file.size for file in bundle_files(folder)), len(bundle_files(folder))
    monkeypatch.setattr(model_store, "MAX_BUNDLE_BYTES", total)
    monkeypatch.setattr(model_store, "MAX_FILES", count)
    assert len(bundle_files(folder)) == count
    monkeypatch.setattr(model_store, "MAX_BUNDLE_BYTES", total - 1)
    with pytest.raises(BundleError, match=f"at most {total - 1} bytes"):
        ModelStore(str(tmp_path / "store")).add(folder, "tiny@1+0")
    monkeypatch.setattr(model_store, "MAX_BUNDLE_BYTES", total)
    monkeypatch.setattr(model_store, "MAX_FILES", count - 1)
    with pytest.raises(BundleError, match=f"1 to {count - 1} files"):
        bundle_files(folder)


def test_a_stored_model_records_whether_it_has_a_strip_table(folder: Path, tmp_path: Path) -> None:
    store = ModelStore(str(tmp_path / "store"))
    assert store.add(folder, "tiny@1+0").strip
    assert not store.add(write_bundle(tmp_path / "without", overlays=0), "tiny@1+0").strip


def test_only_models_of_the_store_itself_are_discarded(folder: Path, tmp_path: Path) -> None:
    model = sign(ModelStore(str(tmp_path / "store")).add(folder, "tiny@1+0"), SIGNER)
    ModelStore(str(tmp_path / "elsewhere")).discard(model)
    assert location(model).is_dir()


def test_a_store_address_of_an_unknown_scheme_or_with_a_password_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fsspec"):
        ModelStore("nonsense://place")
    with pytest.raises(ConfigError, match="password"):
        ModelStore("ftp://user:hidden@host/models")


def test_a_folder_without_files_is_rejected_as_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="got 0 of 0"):
        bundle_files(tmp_path)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_bundle_with_a_link_is_rejected_and_the_target_is_not_copied(folder: Path, tmp_path: Path, kind: str) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "fleet.secret").write_text("not for everybody")
    (folder / "notes").symlink_to(secrets if kind == "folder" else secrets / "fleet.secret")
    with pytest.raises(BundleError, match="got the link notes"):
        ModelStore(str(tmp_path / "store")).add(folder, "tiny@1+0")
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


def test_an_untrusted_model_is_rejected_before_the_store_or_the_cache_is_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsigned = ModelStore(str(tmp_path / "store")).add(folder, "tiny@1+0")
    cache = tmp_path / "cache"
    fetch_bundle(sign(unsigned, SIGNER), cache, TRUSTED)
    monkeypatch.setattr(model_store, "_fetch", None)
    monkeypatch.setattr(model_store, "_is_whole", None)
    changed = sign(unsigned, SIGNER)
    changed.digest = "0" * 64
    for model, message in (
        (unsigned, "expected a signature, found none"),
        (sign(unsigned, Signer.new()), "signed by SHA256:[0-9a-f]{16}, who is not trusted"),
        (changed, "does not match the key of tests"),
    ):
        with pytest.raises(UntrustedBundleError, match=f"^tiny@1\\+0: .*{message}$"):
            fetch_bundle(model, cache, TRUSTED)


def test_errors_about_an_unreadable_file_or_store_have_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def deny(file: Path, *arguments: Any, **options: Any) -> Any:
        if file.name == "network.py":
            raise PermissionError(13, "Permission denied")
        return opened(file, *arguments, **options)

    (tmp_path / "store").mkdir()
    store = ModelStore(str(tmp_path / "store"))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", deny)
        with pytest.raises(BundleError, match=r"network\.py: expected a readable file, got Permission denied\."):
            store.add(folder, "tiny@1")
        assert not model_store._is_whole(folder, "0" * 64)
    shutil.rmtree(tmp_path / "store")
    (tmp_path / "store").write_text("a file")
    with pytest.raises(
        BundleError, match=r"^the store: expected it to accept .*bundle, got \w+: .*\. Correct its addr"
    ):
        store.add(folder, "tiny@1")

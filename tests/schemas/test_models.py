from __future__ import annotations

import pytest

from schemas.errors import BadTag, Malformed
from schemas.keys import KeyRing
from schemas.models import MAX_PUBLISHED, bundle_digest, is_inside, live, publish, seal, standing, unseal, withdraw
from schemas.pointillist_pb2 import BundleFile, Model, Models, SignedModels

KEYS = KeyRing(b"a fleet secret of tests")


def model(name: str, *files: str) -> Model:
    listed = [BundleFile(name=file, size=3, sha256=bytes(32)) for file in files or ("model.toml",)]
    return Model(model_id=name, location=f"memory://{name}", published_ms=5, digest=bundle_digest(listed), files=listed)


def names(models: Models) -> list[str]:
    return [each.model_id for each in standing(models)]


def test_the_live_model_is_the_newest_that_was_not_withdrawn() -> None:
    models = Models()
    assert live(models) is None
    for name in "abc":
        models = publish(models, model(name))
    assert names(models) == ["c", "b", "a"]
    models = withdraw(models, 9)
    assert names(models) == ["b", "a"]
    models = publish(models, model("d"))
    assert names(withdraw(models, 10)) == ["b", "a"]
    gone = withdraw(models, 11, everything=True)
    assert live(gone) is None
    assert withdraw(gone, 12) == gone
    assert [each.model_id for each in gone.published] == ["d", "c", "b", "a"]


def test_what_is_remembered_is_bounded() -> None:
    models = Models()
    for number in range(MAX_PUBLISHED + 3):
        models = publish(models, model(str(number)))
    assert len(models.published) == MAX_PUBLISHED
    assert models.published[-1].model_id == "3"


def test_a_sealed_list_is_read_back_and_only_under_its_secret() -> None:
    models = publish(publish(Models(), model("a")), model("b", "model.toml", "code/network.py"))
    value = seal(models, KEYS)
    assert unseal(value, KEYS) == models
    with pytest.raises(BadTag):
        unseal(value, KeyRing(b"a secret of someone else"))
    signed = SignedModels.FromString(value)
    signed.models += publish(Models(), model("c")).SerializeToString()
    with pytest.raises(BadTag):
        unseal(signed.SerializeToString(), KEYS)
    with pytest.raises(Malformed):
        unseal(b"\xff\xff no message", KEYS)


@pytest.mark.parametrize("name", ["../a", "..", "/a", "a/../../b", "", ".", "a//b", "./a", "a\\b", "x" * 201, "a\0b"])
def test_a_file_outside_the_bundle_is_refused(name: str) -> None:
    assert not is_inside(name)
    with pytest.raises(Malformed, match="inside the bundle"):
        unseal(seal(Models(published=[model("a", "model.toml", name)]), KEYS), KEYS)


@pytest.mark.parametrize("name", ["model.toml", "code/network.py", "..b", "a b", "weights.safetensors"])
def test_a_file_of_the_bundle_is_taken(name: str) -> None:
    assert is_inside(name)


def test_a_digest_that_is_not_of_the_files_is_refused() -> None:
    wrong = model("a")
    wrong.files[0].sha256 = bytes([1]) * 32
    with pytest.raises(Malformed, match="digest"):
        unseal(seal(Models(published=[wrong]), KEYS), KEYS)
    twice = model("a", "model.toml", "model.toml")
    with pytest.raises(Malformed):
        unseal(seal(Models(published=[twice]), KEYS), KEYS)


def test_the_digest_does_not_depend_on_the_order_of_the_files() -> None:
    files = [BundleFile(name=n, size=i, sha256=bytes([i]) * 32) for i, n in enumerate(("b", "a", "c"))]
    assert bundle_digest(files) == bundle_digest(files[::-1])
    assert bundle_digest(files) != bundle_digest(files[:2])

"""The signed list of models: publication, withdrawal, signatures, and limits."""

from __future__ import annotations

import pytest

from schemas.errors import BadTagError, MalformedError
from schemas.keys.signers import SignaturePurpose, Signer, TrustedSigners
from schemas.messages.models import (
    MAX_BUNDLE_BYTES,
    MAX_FILES,
    MAX_NAME,
    MAX_PUBLISHED,
    bundle_digest,
    check_signature,
    claimed,
    is_inside,
    live,
    publish,
    seal,
    sign,
    standing,
    unseal,
    withdraw,
)
from schemas.pointillist_pb2 import BundleFile, Model, Models, Rollout, SignedModels

SIGNER, STRANGER = Signer.new(), Signer.new()
TRUSTED = TrustedSigners({SIGNER.public: "tests"})


def model(name: str, *files: str) -> Model:
    listed = [BundleFile(name=file, size=3, sha256=bytes(32)) for file in files or ("model.toml",)]
    return Model(model_id=name, location=f"memory://{name}", published_ms=5, digest=bundle_digest(listed), files=listed)


def names(models: Models) -> list[str]:
    return [each.model_id for each in standing(models)]


def test_the_live_model_is_the_newest_one_that_is_not_withdrawn() -> None:
    models = Models()
    assert live(models) is None
    for name in "abc":
        models = publish(models, model(name))
    assert names(models) == ["c", "b", "a"]
    models = withdraw(models, 9)
    assert names(models) == ["b", "a"]
    models = publish(models, model("d"))
    assert names(withdraw(models, 10)) == ["b", "a"]
    withdrawn = withdraw(models, 11, everything=True)
    assert live(withdrawn) is None
    assert withdraw(withdrawn, 12) == withdrawn
    assert [each.model_id for each in withdrawn.published] == ["d", "c", "b", "a"]


def test_the_list_has_a_limited_number_of_models() -> None:
    models = Models()
    for number in range(MAX_PUBLISHED + 3):
        models = publish(models, model(str(number)))
    assert len(models.published) == MAX_PUBLISHED
    assert models.published[-1].model_id == "3"


def test_withdrawn_models_leave_a_full_list_before_the_others() -> None:
    models = publish(publish(Models(), model("oldest")), model("good"))
    for number in range(MAX_PUBLISHED + 3):
        models = withdraw(publish(models, model(str(number))), 9)
        assert names(models) == ["good", "oldest"]
    assert len(models.published) == MAX_PUBLISHED
    assert models.published[0].model_id == str(MAX_PUBLISHED + 2)


def test_a_signed_list_is_accepted_only_from_a_trusted_signer() -> None:
    models = publish(publish(Models(), model("a")), model("b", "model.toml", "code/network.py"))
    value = seal(models, SIGNER)
    assert unseal(value, TRUSTED) == models
    with pytest.raises(BadTagError, match=r"the list of models: signed by SHA256:.*, who is not trusted$"):
        unseal(seal(models, STRANGER), TRUSTED)
    with pytest.raises(BadTagError, match="no signer is, --trust FILE names them"):
        unseal(value, TrustedSigners())
    signed = SignedModels.FromString(value)
    signed.models += publish(Models(), model("c")).SerializeToString()
    with pytest.raises(BadTagError, match="does not match the key of tests"):
        unseal(signed.SerializeToString(), TRUSTED)
    with pytest.raises(BadTagError, match="expected a signature, found none"):
        unseal(SignedModels(models=models.SerializeToString()).SerializeToString(), TRUSTED)
    with pytest.raises(MalformedError):
        unseal(b"\xff\xff no message", TRUSTED)


@pytest.mark.parametrize("share", [-0.01, 1.01, float("nan")])
def test_the_shares_of_a_rollout_are_from_0_to_1(share: float) -> None:
    rollout = Rollout(candidate=model("b", "model.toml"), frames=0, cameras=1)
    within = Models(published=[model("a")], rollout=rollout)
    assert unseal(seal(within, SIGNER), TRUSTED) == within
    for name in ("frames", "cameras"):
        beyond = Models.FromString(within.SerializeToString())
        setattr(beyond.rollout, name, share)
        with pytest.raises(MalformedError, match="rollout: expected shares from 0 to 1"):
            unseal(seal(beyond, SIGNER), TRUSTED)


def test_the_claimed_digest_of_an_untrusted_list_can_be_read() -> None:
    listed = model("a")
    assert claimed(seal(publish(Models(), listed), STRANGER)) == listed.digest
    assert claimed(seal(Models(), STRANGER)) == claimed(b"\xff\xff no message") == ""


def test_the_signature_of_a_bundle_covers_only_its_files() -> None:
    signed = sign(model("a"), SIGNER)
    signed.withdrawn_ms, signed.location = 7, "memory://moved"
    assert check_signature(signed, TRUSTED) == "tests"
    other = model("a", "model.toml", "network.py")
    other.signer, other.signature = signed.signer, signed.signature
    for wrong in (model("a"), sign(model("a"), STRANGER), other):
        with pytest.raises(BadTagError):
            check_signature(wrong, TRUSTED)


def test_the_signature_of_a_bundle_is_not_valid_for_a_list() -> None:
    body = publish(Models(), model("a")).SerializeToString()
    as_bundle = SIGNER.sign(SignaturePurpose.BUNDLE, body)
    with pytest.raises(BadTagError):
        unseal(SignedModels(models=body, signer=SIGNER.public, signature=as_bundle).SerializeToString(), TRUSTED)


@pytest.mark.parametrize(
    "name",
    ["../a", "..", "/a", "a/../../b", "", ".", "a//b", "./a", "a\\b", "x" * (MAX_NAME + 1), "a\0b", "a\nb", "a\x85b"],
)
def test_a_file_outside_the_bundle_is_rejected(name: str) -> None:
    assert not is_inside(name)
    with pytest.raises(MalformedError, match="inside the bundle"):
        unseal(seal(Models(published=[model("a", "model.toml", name)]), SIGNER), TRUSTED)


def test_files_whose_names_hide_other_files_in_a_line_break_are_rejected() -> None:
    one, two = (BundleFile(name=name, size=1, sha256=bytes(32)) for name in ("a", "b"))
    line = f"{bytes(32).hex()} 1 b"
    joined = BundleFile(name=f"a\n{line}", size=1, sha256=bytes(32))
    assert bundle_digest([joined]) == bundle_digest([one, two])
    model = Model(model_id="m", digest=bundle_digest([one, two]), files=[joined])
    with pytest.raises(MalformedError, match="without control characters"):
        unseal(seal(Models(published=[model]), SIGNER), TRUSTED)


@pytest.mark.parametrize(
    "name", ["model.toml", "code/network.py", "..b", "a b", "ä", "weights.safetensors", "x" * MAX_NAME]
)
def test_a_file_inside_the_bundle_is_accepted(name: str) -> None:
    assert is_inside(name)


def listed(count: int, each: int = 1) -> bytes:
    files = [BundleFile(name=str(number), size=each, sha256=bytes(32)) for number in range(count)]
    return seal(Models(published=[Model(model_id="m", digest=bundle_digest(files), files=files)]), SIGNER)


@pytest.mark.parametrize(("count", "each"), [(1, 1), (MAX_FILES, 1), (2, MAX_BUNDLE_BYTES // 2)])
def test_a_bundle_at_its_limits_is_accepted_and_beyond_them_rejected(count: int, each: int) -> None:
    assert len(unseal(listed(count, each), TRUSTED).published[0].files) == count
    for files, size in ((0, 1), (MAX_FILES + 1, 1), (count, MAX_BUNDLE_BYTES // count + 1)):
        with pytest.raises(MalformedError):
            unseal(listed(files, size), TRUSTED)


def test_a_digest_of_other_files_is_rejected() -> None:
    wrong = model("a")
    wrong.files[0].sha256 = bytes([1]) * 32
    with pytest.raises(MalformedError, match="digest"):
        unseal(seal(Models(published=[wrong]), SIGNER), TRUSTED)
    twice = model("a", "model.toml", "model.toml")
    with pytest.raises(MalformedError):
        unseal(seal(Models(published=[twice]), SIGNER), TRUSTED)

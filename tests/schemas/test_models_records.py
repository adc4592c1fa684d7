"""The newest record of each key in the topic of models."""

from __future__ import annotations

from schemas.errors import ConfigError
from schemas.keys.signers import Signer, TrustedSigners
from schemas.messages.models import LIVE_KEY, bundle_digest, seal
from schemas.messages.models_records import ModelsRecords
from schemas.pointillist_pb2 import BundleFile, Model, Models

OURS, STRANGER = Signer.new(), Signer.new()


def listed(name: str, changed_ms: int) -> Models:
    files = [BundleFile(name=f"{name}.toml", size=1, sha256=bytes(32))]
    return Models(published=[Model(model_id=name, digest=bundle_digest(files), files=files)], changed_ms=changed_ms)


def test_an_older_list_is_accepted_only_after_the_topic_was_created_again() -> None:
    records = ModelsRecords(lambda: TrustedSigners({OURS.public: "ours"}))
    old, new = listed("old", 1), listed("new", 2)
    for each in (new, old):
        records.apply_record(LIVE_KEY, seal(each, OURS))
    assert records.listed == new
    records.restart()
    assert records.listed == new
    records.apply_record(LIVE_KEY, seal(old, OURS))
    assert records.listed == old


def test_a_rejected_list_is_accepted_once_its_signer_is_trusted() -> None:
    trusted = {OURS.public: "ours"}
    records = ModelsRecords(lambda: TrustedSigners(trusted))
    theirs = listed("theirs", 1)
    records.apply_record(LIVE_KEY, seal(theirs, STRANGER))
    assert not records.listed.published
    assert "not trusted" in records.refused
    assert records.refused_digest == theirs.published[0].digest
    trusted[STRANGER.public] = "stranger"
    records.retry()
    assert records.listed == theirs
    assert (records.refused, records.refused_digest) == ("", "")


def test_a_rejected_list_of_a_topic_that_was_created_again_is_forgotten() -> None:
    trusted: dict[bytes, str] = {}
    records = ModelsRecords(lambda: TrustedSigners(trusted))
    records.apply_record(LIVE_KEY, seal(listed("theirs", 1), STRANGER))
    records.restart()
    trusted[STRANGER.public] = "stranger"
    records.retry()
    assert not records.listed.published
    assert records.refused == ""


def test_an_unreadable_file_of_trusted_signers_rejects_the_list() -> None:
    def fail() -> TrustedSigners:
        raise ConfigError("trust, line 1: expected a key")

    records = ModelsRecords(fail)
    records.apply_record(LIVE_KEY, seal(listed("ours", 1), OURS))
    assert records.refused == "trust, line 1: expected a key"
    assert not records.listed.published

"""The list with a rollout and the gate's assessment: the models in force, and the trusted decider."""

from __future__ import annotations

import math

import pytest

from schemas.errors import BadTagError, MalformedError
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.keys.signers import Signer, TrustedSigners
from schemas.messages.models import bundle_digest, live, seal, unseal
from schemas.messages.rollout import (
    RolloutRecords,
    begin,
    is_canary,
    is_compared,
    seal_assessment,
    settled,
    slots,
    unseal_assessment,
)
from schemas.pointillist_pb2 import (
    CANARY,
    FAILED,
    MEASURING,
    PASSED,
    PROMOTED,
    SHADOW,
    Assessment,
    BundleFile,
    Model,
    Models,
    Outcome,
    Rollout,
    Slot,
)

PERSON, GATE, STRANGER = Signer.new(), Signer.new(), Signer.new()
KEYS = KeyRing(b"a fleet secret for rollouts")


def model(name: str) -> Model:
    files = [BundleFile(name=f"{name}.toml", size=1, sha256=bytes(32))]
    return Model(model_id=name, digest=bundle_digest(files), files=files)


def rollout(slot: Slot = SHADOW, **fields: object) -> Rollout:
    current = Rollout(
        candidate=model("new"), begun_ms=5, slot=slot, frames=0.2, cameras=0.25, by_rule=True, decider=GATE.public
    )
    current.MergeFrom(Rollout(**fields))  # type: ignore[arg-type]
    return current


def listed(current: Rollout | None = None) -> Models:
    return begin(Models(published=[model("old")], changed_ms=1), current or rollout())


def assessed(outcome: Outcome, slot: Slot = SHADOW, begun_ms: int = 5, at_ms: int = 9) -> Assessment:
    return Assessment(digest=model("new").digest, begun_ms=begun_ms, slot=slot, outcome=outcome, at_ms=at_ms)


def live_name(models: Models) -> str:
    found = live(models)
    return found.model_id if found is not None else ""


def test_a_failed_candidate_is_removed_and_the_live_model_stays() -> None:
    now = settled(listed(), assessed(FAILED))
    assert slots(now).rollout is None
    assert live_name(now) == "old"


def test_a_promotion_applies_only_if_the_list_permits_it() -> None:
    assert live_name(settled(listed(), assessed(PROMOTED))) == "new"
    by_hand = rollout()
    by_hand.by_rule = False
    for outcome, slot in ((PROMOTED, SHADOW), (MEASURING, CANARY)):
        now = settled(listed(by_hand), assessed(outcome, slot))
        assert live_name(now) == "old"
        assert slots(now).rollout == by_hand


def test_a_passed_shadow_becomes_a_canary_by_rule() -> None:
    now = slots(settled(listed(), assessed(MEASURING, CANARY))).rollout
    assert now is not None
    assert now.slot == CANARY


def test_an_assessment_of_another_rollout_changes_nothing() -> None:
    assert settled(listed(), assessed(FAILED, begun_ms=4)) == listed()


def test_only_the_listed_deciders_assessment_is_accepted() -> None:
    current = rollout()
    assert unseal_assessment(seal_assessment(assessed(PASSED), GATE), current) == assessed(PASSED)
    with pytest.raises(BadTagError):
        unseal_assessment(seal_assessment(assessed(PASSED), STRANGER), current)
    current.decider = b""
    with pytest.raises(BadTagError):
        unseal_assessment(seal_assessment(assessed(PASSED), GATE), current)


def test_records_apply_in_any_order_and_an_older_assessment_changes_nothing() -> None:
    records = RolloutRecords()
    records.apply_assessment(seal_assessment(assessed(FAILED, at_ms=9), GATE))
    records.listed = listed()
    assert slots(records.models).rollout is None
    for value in (seal_assessment(assessed(MEASURING, at_ms=8), GATE), b"damaged", None):
        records.apply_assessment(value)
        assert slots(records.models).rollout is None


def test_an_assessment_that_arrives_before_its_list_applies_despite_an_earlier_assessment() -> None:
    records, earlier, later = RolloutRecords(), rollout(), rollout()
    later.begun_ms += 1000
    records.listed = listed(earlier)
    records.apply_assessment(seal_assessment(assessed(FAILED, at_ms=9), GATE))
    of_later = assessed(FAILED, at_ms=1009)
    of_later.begun_ms = later.begun_ms
    records.apply_assessment(seal_assessment(of_later, GATE))
    assert records.assessment == assessed(FAILED, at_ms=9)
    records.listed = listed(later)
    assert records.assessment == of_later
    assert slots(records.models).rollout is None
    records.apply_assessment(b"damaged")
    assert records.assessment == of_later


def test_a_list_with_shares_out_of_range_is_rejected() -> None:
    for share in (1.5, math.nan):
        current = rollout()
        current.frames = share
        with pytest.raises(MalformedError, match="shares from 0 to 1"):
            unseal(seal(listed(current), PERSON), TrustedSigners({PERSON.public: "person"}))


def test_about_the_chosen_share_of_frames_is_compared_and_all_processors_choose_the_same() -> None:
    key, again = (KeyRing(b"a fleet secret for rollouts").key(CameraId("site/a"), 0) for _ in range(2))
    chosen = [is_compared(key, 7, seq, rollout()) for seq in range(2000)]
    assert chosen == [is_compared(again, 7, seq, rollout()) for seq in range(2000)]
    assert 300 < sum(chosen) < 500


def test_a_canary_serves_whole_cameras_and_another_candidate_serves_others() -> None:
    keys = [KEYS.key(CameraId(f"site/cam-{number}"), 0) for number in range(400)]
    first = [is_canary(key, rollout(CANARY)) for key in keys]
    assert 60 < sum(first) < 140
    assert all(is_compared(key, 1, 2, rollout(CANARY)) == served for key, served in zip(keys, first, strict=True))
    other = rollout(CANARY)
    other.candidate.CopyFrom(model("newer"))
    assert first != [is_canary(key, other) for key in keys]

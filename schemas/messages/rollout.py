"""The rollout of a candidate: its place in the list of models, the gate's assessments of it, and the chosen shares."""

from __future__ import annotations

import struct
from copy import deepcopy
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from schemas.errors import BadTagError, MalformedError
from schemas.keys.keys import CameraKey
from schemas.keys.signers import SignaturePurpose, Signer, TrustedSigners
from schemas.messages.models import live, publish
from schemas.pointillist_pb2 import (
    CANARY,
    FAILED,
    NO_SLOT,
    PROMOTED,
    SHADOW,
    Assessment,
    Model,
    Models,
    Rollout,
    SignedAssessment,
)

ASSESSMENT_KEY: Final = b"assessment"
"""Key of the record of the gate's newest assessment in the topic of models."""
MAX_REPORT: Final = 32_768
"""Maximum characters of a report."""
_IDENTITY: Final = struct.Struct("<QQ")
_WORDS: Final = 2.0**64


class Slots(NamedTuple):
    """The models in force: the live one (None: each processor's own bundle), and the candidate with its slot."""

    live: Model | None
    rollout: Rollout | None

    @property
    def candidate(self) -> Model | None:
        """The candidate; None without one."""
        return self.rollout.candidate if self.rollout is not None else None


def slots(models: Models) -> Slots:
    """Return the models in force by a settled list."""
    rollout = models.rollout if models.HasField("rollout") and models.rollout.slot != NO_SLOT else None
    return Slots(live(models), rollout)


def concerns(assessment: Assessment, rollout: Rollout) -> bool:
    """Return whether an assessment is about this rollout."""
    return assessment.digest == rollout.candidate.digest and assessment.begun_ms == rollout.begun_ms


def settled(models: Models, assessment: Assessment | None) -> Models:
    """Return the list with the assessment applied: the candidate promoted, moved to another slot, or withdrawn.

    An assessment of another rollout changes nothing. One that promotes changes nothing unless the list permits it.
    """
    if assessment is None or not models.HasField("rollout") or not concerns(assessment, models.rollout):
        return models
    rollout = models.rollout
    if assessment.outcome == FAILED:
        return ended(models)
    if rollout.by_rule and assessment.outcome == PROMOTED:
        return promoted(models)
    if rollout.by_rule and assessment.slot == CANARY and rollout.slot == SHADOW:
        changed = deepcopy(models)
        changed.rollout.slot = CANARY
        return changed
    return models


def named(models: Models) -> list[Model]:
    """Return all models that a list names: the published ones and the candidate."""
    return [*models.published, *([models.rollout.candidate] if models.HasField("rollout") else ())]


def begin(models: Models, rollout: Rollout) -> Models:
    """Return the list with this rollout in place of an earlier one."""
    changed = deepcopy(models)
    changed.rollout.CopyFrom(rollout)
    return changed


def ended(models: Models) -> Models:
    """Return the list without its rollout."""
    changed = deepcopy(models)
    changed.ClearField("rollout")
    return changed


def promoted(models: Models) -> Models:
    """Return the list with the candidate as its live model, and without the rollout."""
    return publish(ended(models), models.rollout.candidate)


def seal_assessment(assessment: Assessment, signer: Signer) -> bytes:
    """Return the record's value."""
    body = assessment.SerializeToString()
    return SignedAssessment(
        assessment=body, signature=signer.sign(SignaturePurpose.ASSESSMENT, body)
    ).SerializeToString()


def unseal_assessment(value: bytes, rollout: Rollout) -> Assessment:
    """Read a record's value. Raises BadTagError unless the rollout's decider signed it, MalformedError otherwise."""
    try:
        signed = SignedAssessment.FromString(value)
        decider = TrustedSigners({rollout.decider: "the decider"} if rollout.decider else {})
        decider.verify(SignaturePurpose.ASSESSMENT, signed.assessment, rollout.decider, signed.signature)
        assessment = Assessment.FromString(signed.assessment)
    except DecodeError as error:
        raise MalformedError(f"expected an assessment: {error}") from None
    except BadTagError as error:
        raise BadTagError(f"the assessment: {error}") from None
    if len(assessment.report) > MAX_REPORT:
        raise MalformedError(f"expected a report of at most {MAX_REPORT} characters, got {len(assessment.report)}")
    return assessment


class RolloutRecords:
    """The newest list and the newest assessment in the topic, in whatever order they are read."""

    def __init__(self) -> None:
        self.listed = Models()
        """The list as its last editor signed it."""
        self._value = b""
        """The newest assessment record of the listed rollout."""
        self._other = b""
        """The newest assessment record of another rollout, whose list may come later."""

    def apply_assessment(self, value: bytes | None) -> None:
        """Accept the value of the record under `ASSESSMENT_KEY`; an older one than the present changes nothing."""
        if not value:
            return
        now, before = self._read(value), self.assessment
        if before is not None and before == self._read(self._other):
            self._value, self._other = self._other, b""
        if now is None:
            self._other = value
        elif before is None or now.at_ms >= before.at_ms:
            self._value = value

    @property
    def assessment(self) -> Assessment | None:
        """The assessment of the listed rollout; None without one, or if its decider did not sign it."""
        found = [each for each in map(self._read, (self._value, self._other)) if each is not None]
        return max(found, key=lambda each: each.at_ms, default=None)

    def _read(self, value: bytes) -> Assessment | None:
        """Return the assessment in a record, if it is about the listed rollout and its decider signed it."""
        if not value or not self.listed.HasField("rollout"):
            return None
        try:
            found = unseal_assessment(value, self.listed.rollout)
        except (BadTagError, MalformedError):
            return None
        return found if concerns(found, self.listed.rollout) else None

    @property
    def models(self) -> Models:
        """The list in force."""
        return settled(self.listed, self.assessment)


def is_compared(key: CameraKey, boot_id: int, seq: int, rollout: Rollout) -> bool:
    """Return whether both models judge this frame: as shadow a share of the frames, in a canary all of its cameras."""
    if rollout.slot == CANARY:
        return is_canary(key, rollout)
    return rollout.slot == SHADOW and _fraction(key, _IDENTITY.pack(boot_id, seq), rollout) < rollout.frames


def is_canary(key: CameraKey, rollout: Rollout) -> bool:
    """Return whether the candidate's answers are the verdicts of this camera."""
    return rollout.slot == CANARY and _fraction(key, b"", rollout) < rollout.cameras


def _fraction(key: CameraKey, what: bytes, rollout: Rollout) -> float:
    # With the candidate's digest: each rollout has other canaries.
    return key.choice(rollout.candidate.digest.encode() + what) / _WORDS

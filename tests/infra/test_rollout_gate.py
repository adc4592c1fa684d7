"""The monitor's gate on simulated comparisons: the counted pairs, its decisions, and its state after a restart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import select

from consumers.console.data.labelled_frames import labelled_frames
from consumers.console.data.store import Store
from consumers.database.comparisons import differences, newest_rollouts
from consumers.database.engine import open_engine
from consumers.database.tables import comparisons, metadata
from infra.monitor.gate import MOST_WAIT_S, AnswerPair, Report, judge
from infra.monitor.rollout import RolloutGate
from infra.monitor.settings import GateRules, MonitorSettings
from schemas.keys.keys import KeyRing
from schemas.keys.roots import Role, Roots
from schemas.keys.signers import Signer, TrustedSigners
from schemas.messages.models import LIVE_KEY, bundle_digest, live, seal
from schemas.messages.rollout import begin, slots
from schemas.messages.server_messages import sign_statement
from schemas.pointillist_pb2 import (
    CANARY,
    FAILED,
    MEASURING,
    PASSED,
    PROMOTED,
    SHADOW,
    Answer,
    BundleFile,
    Comparison,
    Model,
    Models,
    Outcome,
    Rollout,
    ServedModel,
    Slot,
)
from schemas.transport.kafka.sender import Sendable, Sender

SECRET = b"a fleet secret for the gate's tests"
MONITOR, PROCESSOR = (KeyRing(Roots.of_fleet(SECRET).of(role)) for role in (Role.AUDITOR, Role.PROCESSOR))
PERSON, DECIDER = Signer.new(), Signer.new()
CAMERA = "site/a"


def model(name: str) -> Model:
    files = [BundleFile(name=f"{name}.toml", size=1, sha256=bytes(32))]
    return Model(model_id=name, digest=bundle_digest(files), files=files)


def rollout(slot: Slot = SHADOW, *, by_rule: bool = True) -> Rollout:
    return Rollout(
        candidate=model("new"), begun_ms=5, slot=slot, frames=0.2, cameras=0.25, by_rule=by_rule,
        decider=DECIDER.public, scan='{"clean": true}',
    )  # fmt: skip


def comparison(seq: int, slot: Slot = SHADOW, *, agrees: bool = True, keys: KeyRing = PROCESSOR) -> bytes:
    statement = Comparison(
        boot_id=7,
        seq=seq,
        captured_ms=1000 + seq,
        begun_ms=5,
        digest=model("new").digest,
        slot=slot,
        live=Answer(class_id=1, class_name="stop", confidence=0.9, seconds=0.01),
        candidate=Answer(class_id=1 if agrees else 2, class_name="go", confidence=0.9, seconds=0.01),
    )
    return sign_statement(keys, CAMERA, statement)


class Rig:
    """A gate with its own database. `sent` are the records that it would send to Kafka."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.sent: list[Sendable] = []

        async def send(_: Sender, topic: str, records: Sequence[Sendable], **options: object) -> None:
            self.sent += records

        monkeypatch.setattr(Sender, "send", send)
        (folder / "decider.key").write_text(DECIDER.export())
        (folder / "trusted").write_text(PERSON.line("person") + "\n")
        self.settings = MonitorSettings(
            kafka="127.0.0.1:1",
            mqtt="127.0.0.1:1",
            database=f"sqlite:///{folder}/records.sqlite",
            console_store=f"sqlite:///{folder}/console.sqlite",
            signer=folder / "decider.key",
            trust=folder / "trusted",
        )
        self.engine = open_engine(self.settings.database, writes=True)
        metadata.create_all(self.engine)
        self.gate = self.new_gate()

    def new_gate(self, *, is_read: bool = True) -> RolloutGate:
        gate = RolloutGate(CollectorRegistry(), self.settings, MONITOR)
        gate.models_read = is_read
        return gate

    def start_rollout(
        self, begun: Rollout, gate: RolloutGate | None = None, classes: Sequence[str] | None = None
    ) -> None:
        """Add a rollout to the gate's models. `classes` are the live model's, by default the candidate's."""
        old = model("old")
        old.classes.extend(begun.candidate.classes if classes is None else classes)
        models = begin(Models(published=[old], changed_ms=1), begun)
        records = (gate or self.gate).records
        records.apply_record(LIVE_KEY, seal(models, PERSON))
        digest, begun_ms = begun.candidate.digest, begun.begun_ms
        served = ServedModel(model_id="old", candidate_digest=digest, candidate_begun_ms=begun_ms)
        records.apply_record(b"processor/p-1", served.SerializeToString())

    def apply_comparisons(self, numbers: range, slot: Slot = SHADOW, *, agrees: bool = True) -> None:
        for seq in numbers:
            self.gate.apply_record(CAMERA.encode(), comparison(seq, slot, agrees=agrees))

    def label(self, numbers: range, label: str) -> None:
        """Label frames in the console, and let the gate read the labels at its next assessment."""
        Store(self.settings.console_store).prepare()
        row = {"why": "wrong", "verdict": "go", "who": "ada", "confidence": 0.5, "at_ms": 1, "bytes": 1, "sketch": b""}
        with open_engine(self.settings.console_store, writes=True).begin() as connection:
            for seq in numbers:
                of_frame = {"name": f"{seq}", "camera": CAMERA, "boot": 7, "seq": seq, "label": label, "labelled_ms": 1}
                connection.execute(labelled_frames.insert().values(row | of_frame))
        self.gate._labels_due_s = 0.0

    def findings(self, finding: str) -> Sequence[str]:
        """Return the rules with this finding in the newest assessment."""
        assert self.gate.records.assessment is not None
        rules = json.loads(self.gate.records.assessment.report)["rules"]
        return [each["name"] for each in rules if each["finding"] == finding]

    @property
    def live(self) -> str:
        found = live(self.gate.records.models)
        return found.model_id if found is not None else ""


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    assert TrustedSigners({PERSON.public: "person"})
    return Rig(tmp_path, monkeypatch)


async def test_a_good_candidate_passes_as_shadow_then_as_canary_and_becomes_live(rig: Rig) -> None:
    rig.start_rollout(rollout())
    rig.apply_comparisons(range(255))
    await rig.gate.assess()
    assert rig.gate.records.assessment is not None
    assert (rig.gate.records.assessment.outcome, rig.gate.records.assessment.slot) == (MEASURING, SHADOW)
    rig.apply_comparisons(range(255, 256))
    await rig.gate.assess()
    running = slots(rig.gate.records.models).rollout
    assert running is not None
    assert running.slot == CANARY
    # The pairs of the shadow do not count for the canary.
    await rig.gate.assess()
    assert rig.live == "old"
    rig.apply_comparisons(range(1000, 1256), CANARY)
    await rig.gate.assess()
    assert rig.live == "new"
    assert rig.gate.records.assessment.outcome == PROMOTED


async def test_a_bad_canary_is_withdrawn_logged_and_stays_withdrawn_after_a_restart(rig: Rig) -> None:
    rig.start_rollout(rollout(CANARY))
    rig.apply_comparisons(range(32), CANARY, agrees=False)
    await rig.gate.assess()
    assert slots(rig.gate.records.models).rollout is None
    assert rig.live == "old"
    with rig.engine.begin() as connection:
        (record,) = newest_rollouts(connection)
        assert (record["outcome"], record["slot"], record["model_id"]) == ("failed", "canary", "new")
        assert "agreement" in [each["name"] for each in record["report"]["rules"] if each["finding"] == "fails"]
        assert len(differences(connection, 5)) == 24
    (line,) = Store(rig.settings.console_store).newest_operations()
    assert (line.who, line.subject, line.outcome) == ("monitor", "new", "rolled back")
    after = rig.new_gate()
    rig.start_rollout(rollout(CANARY), after)
    after.records.apply_record(rig.sent[-1].key, rig.sent[-1].value)
    before = len(rig.sent)
    await after.assess()
    assert slots(after.records.models).rollout is None
    assert len(rig.sent) == before


async def test_a_repeated_or_forged_comparison_is_not_counted(rig: Rig) -> None:
    rig.start_rollout(rollout(CANARY))
    for _ in range(40):
        rig.gate.apply_record(CAMERA.encode(), comparison(1, CANARY, agrees=False))
    other = KeyRing(Roots.of_fleet(b"another fleet's secret").of(Role.PROCESSOR))
    for seq in range(40):
        rig.gate.apply_record(CAMERA.encode(), comparison(seq, CANARY, agrees=False, keys=other))
    await rig.gate.assess()
    assert rig.gate.records.assessment is not None
    assert rig.gate.records.assessment.outcome == MEASURING
    with rig.engine.begin() as connection:
        assert len(connection.execute(select(comparisons)).all()) == 1


@pytest.mark.parametrize(
    ("begun_ms", "retries", "outcome"), [(5, False, FAILED), (5, True, MEASURING), (4, False, MEASURING)]
)
async def test_a_candidate_that_one_processor_cannot_load_is_withdrawn_unless_retried_or_outdated(
    rig: Rig, begun_ms: int, retries: bool, outcome: Outcome
) -> None:
    rig.start_rollout(rollout())
    error = ServedModel(
        model_id="old", candidate_digest=model("new").digest, candidate_error="it is broken",
        candidate_begun_ms=begun_ms, candidate_retries=retries,
    )  # fmt: skip
    rig.gate.records.apply_record(b"processor/p-2", error.SerializeToString())
    await rig.gate.assess()
    assert rig.gate.records.assessment is not None
    assert rig.gate.records.assessment.outcome == outcome


async def test_comparisons_that_could_not_be_saved_are_saved_later(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.start_rollout(rollout())
    rig.apply_comparisons(range(20))
    with monkeypatch.context() as broken:
        broken.setattr(rig.gate, "_save", lambda save: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await rig.gate.assess()
    rig.apply_comparisons(range(20, 24))
    await rig.gate.assess()
    with rig.engine.begin() as connection:
        assert len(connection.execute(select(comparisons)).all()) == 24


@pytest.mark.parametrize("broken", ["database", "console_store"])
async def test_a_decision_that_could_not_be_saved_is_saved_and_logged_later(rig: Rig, broken: str) -> None:
    rig.start_rollout(rollout())
    rig.apply_comparisons(range(256))
    nowhere = {broken: f"sqlite:///{rig.settings.trust}/x.sqlite"}
    rig.gate._settings = rig.settings.model_copy(update=nowhere)
    with pytest.raises(FileExistsError):
        await rig.gate.assess()
    rig.apply_comparisons(range(1000, 1032), CANARY, agrees=False)
    with pytest.raises(FileExistsError):
        await rig.gate.assess()
    assert slots(rig.gate.records.models).rollout is None
    rig.gate._settings = rig.settings
    for _ in range(2):
        await rig.gate.assess()
    with rig.engine.begin() as connection:
        (record,) = newest_rollouts(connection)
        assert (record["outcome"], record["slot"]) == ("failed", "canary")
    noted = Store(rig.settings.console_store).newest_operations()
    assert sorted(line.outcome for line in noted) == ["measuring", "rolled back"]


async def test_a_gate_that_is_not_the_decider_publishes_nothing(rig: Rig) -> None:
    begun = rollout()
    begun.decider = PERSON.public
    rig.start_rollout(begun)
    rig.apply_comparisons(range(64), agrees=False)
    await rig.gate.assess()
    assert not rig.sent


async def test_an_assessment_is_computed_once_for_each_number_of_pairs_and_slot(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []

    def count_pairs(pairs: Sequence[AnswerPair], rules: GateRules, cameras: int) -> Report:
        counts.append(len(pairs))
        return judge(pairs, rules, cameras)

    monkeypatch.setattr("infra.monitor.rollout.judge", count_pairs)
    rig.start_rollout(rollout())
    for numbers in (range(20), range(20, 24), range(24, 40)):
        rig.apply_comparisons(numbers)
        await rig.gate.assess()
        await rig.gate.assess()
    assert counts == [20, 40]
    rig.start_rollout(rollout(CANARY))
    rig.apply_comparisons(range(100, 120), CANARY)
    await rig.gate.assess()
    assert counts == [20, 40, 20]


async def test_labels_from_the_console_can_fail_a_rollout(rig: Rig) -> None:
    begun = rollout()
    begun.candidate.classes.extend(["go", "stop", "yield"])
    rig.start_rollout(begun)
    # Of 64 frames, the models differ on the 16 that people have labelled: too few for the agreement to fail.
    rig.apply_comparisons(range(48))
    rig.apply_comparisons(range(48, 64), agrees=False)
    await rig.gate.assess()
    assert rig.gate.records.assessment is not None
    assert rig.gate.records.assessment.outcome == MEASURING
    rig.label(range(48, 64), "stop")
    await rig.gate.assess()
    assert rig.gate.records.assessment.outcome == FAILED
    assert rig.findings("fails") == ["labels"]


@pytest.mark.parametrize(("by_rule", "outcome"), [(False, PASSED), (True, MEASURING)])
async def test_a_candidate_with_other_classes_passes_without_agreement_and_never_by_rule(
    rig: Rig, by_rule: bool, outcome: Outcome
) -> None:
    begun = rollout(by_rule=by_rule)
    begun.candidate.classes.extend(["nobody", "person", "stop"])
    rig.start_rollout(begun, classes=["go", "stop", "yield"])
    rig.apply_comparisons(range(256), agrees=False)
    await rig.gate.assess()
    assert rig.gate.records.assessment is not None
    assert rig.gate.records.assessment.outcome == outcome
    assert ("agreement" in rig.findings("not measured")) != by_rule


async def test_labels_compare_models_with_other_classes_by_name(rig: Rig) -> None:
    begun = rollout(by_rule=False)
    begun.candidate.classes.extend(["nobody", "person", "stop"])
    rig.start_rollout(begun, classes=["go", "stop", "yield"])
    rig.apply_comparisons(range(48))  # the candidate reads person, the live model stop, both the number 1
    rig.label(range(48), "stop")
    await rig.gate.assess()
    assert rig.findings("fails") == ["labels"]


async def test_a_canary_without_cameras_is_withdrawn_only_after_a_deadline_from_its_loading(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr("infra.monitor.rollout.time.monotonic", lambda: now_s)
    rig.start_rollout(rollout(CANARY))
    rig.gate.records.served.clear()
    # The deadline starts when a processor has loaded the candidate, and again after a restart.
    for gate in (rig.gate, rig.new_gate()):
        rig.gate = gate
        await gate.assess()
        now_s += MOST_WAIT_S
        rig.start_rollout(rollout(CANARY))
        for _ in range(2):
            await gate.assess()
            assert slots(gate.records.models).rollout is not None
            now_s += MOST_WAIT_S - 1
    now_s += 2
    await rig.gate.assess()
    assert slots(rig.gate.records.models).rollout is None
    assert rig.findings("fails") == ["frames"]


async def test_a_slot_with_one_frame_is_not_withdrawn(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr("infra.monitor.rollout.time.monotonic", lambda: now_s)
    rig.start_rollout(rollout(CANARY))
    rig.apply_comparisons(range(1), CANARY)
    for _ in range(3):
        await rig.gate.assess()
        assert slots(rig.gate.records.models).rollout is not None
        now_s += MOST_WAIT_S


async def test_a_rollout_by_a_signer_who_is_trusted_later_is_assessed(rig: Rig) -> None:
    (rig.folder / "trusted").write_text(DECIDER.line("somebody") + "\n")
    rig.start_rollout(rollout())
    await rig.gate.assess()
    assert (rig.gate.records.assessment, rig.live) == (None, "")
    assert "who is not trusted" in rig.gate.records.refused
    (rig.folder / "trusted").write_text(PERSON.line("person") + "\n")
    await rig.gate.assess()
    assert (rig.gate.records.refused, rig.live) == ("", "old")
    assert rig.gate.records.assessment is not None
    (rig.folder / "trusted").write_text("no key\n")
    rig.start_rollout(rollout(CANARY))
    assert "trusted" in rig.gate.records.refused
    assert slots(rig.gate.records.models).candidate is not None


async def test_a_restarted_gate_assesses_nothing_before_it_has_read_the_list_of_models_to_its_end(rig: Rig) -> None:
    rig.start_rollout(rollout(CANARY))
    rig.apply_comparisons(range(32), CANARY, agrees=False)
    await rig.gate.assess()
    failed = rig.sent[-1]
    after = rig.new_gate(is_read=False)
    rig.start_rollout(rollout(CANARY), after)
    await after.assess()
    assert rig.sent[-1] is failed
    after.records.apply_record(failed.key, failed.value)
    after.models_read = True
    await after.assess()
    assert slots(after.records.models).rollout is None
    assert rig.sent[-1] is failed


@pytest.mark.parametrize(
    ("scan", "outcome", "finding"), [('{"clean": false}', FAILED, "fails"), ("", MEASURING, "waits")]
)
async def test_a_candidate_passes_by_rule_only_after_a_clean_scan(
    rig: Rig, scan: str, outcome: int, finding: str
) -> None:
    begun = rollout()
    begun.scan = scan
    rig.start_rollout(begun)
    await rig.gate.assess()
    assessment = rig.gate.records.assessment
    assert assessment is not None
    assert assessment.outcome == outcome
    assert [each["finding"] for each in json.loads(assessment.report)["rules"] if each["name"] == "scan"] == [finding]


async def test_a_candidate_that_takes_too_much_memory_fails(rig: Rig) -> None:
    rig.start_rollout(rollout())
    served = ServedModel(
        model_id="old", candidate_digest=model("new").digest, candidate_begun_ms=5, candidate_bytes=2**62
    )
    rig.gate.records.apply_record(b"processor/p-2", served.SerializeToString())
    await rig.gate.assess()
    assessment = rig.gate.records.assessment
    assert assessment is not None
    assert assessment.outcome == FAILED

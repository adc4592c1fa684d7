"""The rollout's gate: it reads comparisons from Kafka, assesses the candidate, and publishes the signed result.

All state is in Kafka: after a restart the comparisons are read from their beginning, and the newest assessment counts.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

import structlog
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection

from consumers.console.data.labelled_frames import newest_labels
from consumers.console.data.store import Store
from consumers.database.comparisons import save_comparisons, save_rollout
from consumers.database.console_store import read_console
from consumers.database.engine import open_engine
from infra.monitor.gate import (
    AnswerPair,
    Finding,
    Report,
    RuleResult,
    answer_pair,
    frames_rule,
    is_counted,
    judge,
    labels_rule,
    last_look_size,
    look_sizes,
    without_class_rules,
)
from infra.monitor.settings import MonitorSettings
from schemas import metrics
from schemas.clock import unix_ms
from schemas.errors import WireError
from schemas.identity import camera_id_on_wire
from schemas.keys.keys import KeyRing
from schemas.keys.signers import Signer, TrustedSigners
from schemas.messages.cloudevents import MODELS, event_headers
from schemas.messages.models_records import ModelsRecords
from schemas.messages.rollout import ASSESSMENT_KEY, seal_assessment, slots
from schemas.messages.server_messages import open_statement
from schemas.pointillist_pb2 import (
    CANARY,
    FAILED,
    MEASURING,
    PASSED,
    PROMOTED,
    SHADOW,
    Assessment,
    Comparison,
    Outcome,
    Rollout,
    SignedAssessment,
    Slot,
)
from schemas.runtime.worker_threads import WorkerThreads
from schemas.topics import KafkaTopic
from schemas.transport.kafka.follow import follow
from schemas.transport.kafka.sender import PlainRecord, Sender

_REPORT_S: Final = 5.0
"""Seconds between two reports while nothing is decided."""
_SEND_S: Final = 10.0
_LABELS_S: Final = 10.0
"""Seconds between two readings of people's labels."""
_UNSAVED: Final = 4096
"""Comparisons that wait for a database that fails; beyond, the oldest are not saved."""
_OUTCOMES: Final = {MEASURING: "measuring", PASSED: "passed", PROMOTED: "promoted", FAILED: "rolled back"}

FrameIdentity = tuple[str, int, int]
"""Camera, boot and number of a frame."""
SlotKey = tuple[int, str, int]
"""Start of a rollout, digest of its candidate, and its slot."""

log = structlog.get_logger()


class RolloutGate:
    """Assesses one rollout at a time. It decides only if the list names its key."""

    def __init__(self, registry: CollectorRegistry, settings: MonitorSettings, keys: KeyRing) -> None:
        """`keys` verify comparisons."""
        self._settings = settings
        self._keys = keys
        self._signer = Signer.read(settings.signer) if settings.signer is not None else None
        TrustedSigners.read(settings.trust)  # A faulty file ends the monitor at its start.
        self.records = ModelsRecords(partial(TrustedSigners.read, settings.trust))
        self.models_read = False
        """Whether the topic of models was read to its end: until then, a later decision may be unknown."""
        self._sender = Sender(settings.kafka)
        self._run_in_thread = WorkerThreads(1, "rollout")
        self._pairs: dict[SlotKey, dict[FrameIdentity, AnswerPair]] = {}
        self._unsaved: list[tuple[str, Comparison]] = []
        self._pending: list[tuple[Assessment, str, bool]] = []
        """Published assessments that the databases do not have yet, with the model's id and whether they decide."""
        self._last_report: tuple[SlotKey, Report] | None = None
        self._loaded_since: tuple[SlotKey, float] | None = None
        """The slot, and the monotonic time at which this gate first found its candidate loaded."""
        self._reported_s = 0.0
        self._labels: dict[FrameIdentity, str] = {}
        self._labels_due_s = 0.0
        self._pair_count = metrics.ROLLOUT_PAIRS.on(registry)
        self._outcome = metrics.ROLLOUT_OUTCOME.on(registry)

    async def read_models(self) -> None:
        """Read the list of models until cancelled."""
        await follow(
            self._settings.kafka, KafkaTopic.MODELS.value, self.records.apply_record, caught_up=self._note_models_read
        )

    def _note_models_read(self) -> None:
        self.models_read = True

    async def read_comparisons(self) -> None:
        """Read comparisons until cancelled."""
        await follow(self._settings.kafka, KafkaTopic.COMPARISONS.value, self.apply_record)

    def apply_record(self, key: bytes, value: bytes | None) -> None:
        """Accept one record of the topic. One without a valid tag is ignored."""
        try:
            camera = camera_id_on_wire(key.decode())
            comparison = open_statement(Comparison, camera, value or b"", self._keys)
        except (WireError, UnicodeDecodeError) as error:
            log.warning("comparison_rejected", error=str(error)[:200])
            return
        name = (comparison.begun_ms, comparison.digest, comparison.slot)
        pair = answer_pair(comparison)
        if name not in self._pairs:
            # Of earlier rollouts only the last few matter, until the list of models has been read.
            for old in sorted(self._pairs)[:-3]:
                del self._pairs[old]
        pairs = self._pairs.setdefault(name, {})
        identity = (camera, comparison.boot_id, comparison.seq)
        if pair is None or identity in pairs or len(pairs) >= look_sizes(self._settings.rollout)[-1]:
            return
        cameras = Counter(each for each, *_ in pairs)
        if is_counted(cameras[camera], len(pairs), len(cameras.keys() | {camera})):
            pairs[identity] = pair
            self._unsaved.append((camera, comparison))

    async def assess(self) -> None:
        """Assess the rollout and publish what has changed. Raises the errors of Kafka and of the database."""
        unsaved, self._unsaved = self._unsaved, []
        try:
            await self._assess_and_publish()
            if unsaved:
                await self._run_in_thread(self._save, lambda each: save_comparisons(each, unsaved, unix_ms()))
        except BaseException:
            self._unsaved = [*unsaved, *self._unsaved][-_UNSAVED:]
            raise
        while self._pending:
            await self._run_in_thread(self._save_assessment, *self._pending[0])
            del self._pending[0]

    async def _assess_and_publish(self) -> None:
        if not self.models_read:
            return
        records = self.records
        records.retry()
        rollout = slots(records.models).rollout
        if rollout is None:
            self._set_metrics(records.assessment, 0)
        else:
            before = records.assessment
            if self._settings.console_store and time.monotonic() >= self._labels_due_s:
                self._labels_due_s = time.monotonic() + _LABELS_S
                self._labels = await self._run_in_thread(self._read_labels)
            assessment, pairs = self._new_assessment(rollout, before)
            self._set_metrics(assessment, pairs)
            await self._publish(rollout, before, assessment)

    def _new_assessment(self, rollout: Rollout, before: Assessment | None) -> tuple[Assessment, int]:
        name = (rollout.begun_ms, rollout.candidate.digest, rollout.slot)
        pairs = self._pairs.get(name, {})
        looked = last_look_size(len(pairs), self._settings.rollout)
        if self._last_report is None or (self._last_report[0], self._last_report[1].looked) != (name, looked):
            self._last_report = (
                name,
                judge(tuple(pairs.values()), self._settings.rollout, len({camera for camera, *_ in pairs})),
            )
        judged = self._last_report[1]
        if self._live_classes(rollout) != list(rollout.candidate.classes):
            judged = without_class_rules(judged, "waits" if rollout.by_rule else "not measured")
        labelled = labels_rule(self._labelled_pairs(rollout, pairs), self._settings.rollout)
        processors = self._processor_rules(rollout)
        frames = frames_rule(len(pairs), self._waited_s(name, processors), rollout.slot)
        report = replace(judged, pairs=len(pairs), rules=(*judged.rules, labelled, *processors, frames))
        now_ms = unix_ms()
        slot_ms = before.slot_ms if before is not None and before.slot == rollout.slot else now_ms
        outcome, slot = decide(rollout, report)
        return Assessment(
            digest=rollout.candidate.digest,
            begun_ms=rollout.begun_ms,
            slot=slot,
            outcome=outcome,
            at_ms=max(now_ms, before.at_ms + 1 if before is not None else 0),
            slot_ms=slot_ms if slot == rollout.slot else now_ms,
            report=report.as_json(),
        ), len(pairs)

    def _waited_s(self, name: SlotKey, processors: Sequence[RuleResult]) -> float:
        """Return the seconds since this gate first found the candidate loaded in this slot.

        A restarted gate begins at 0, because it reads the comparisons again.
        """
        if not any(rule.name == "load" and rule.finding == "passes" for rule in processors):
            self._loaded_since = None
        elif self._loaded_since is None or self._loaded_since[0] != name:
            self._loaded_since = (name, time.monotonic())
        return time.monotonic() - self._loaded_since[1] if self._loaded_since is not None else 0.0

    def _labelled_pairs(
        self, rollout: Rollout, pairs: Mapping[FrameIdentity, AnswerPair]
    ) -> list[tuple[AnswerPair, int]]:
        """Return the pairs of frames that people have labelled by a class of the candidate, with its number."""
        numbers = {name: number for number, name in enumerate(rollout.candidate.classes)}
        live = dict(enumerate(self._live_classes(rollout)))
        labelled = ((pair, numbers.get(self._labels.get(name, ""), -1)) for name, pair in pairs.items())
        # The live model is right if its class has the name of the label.
        return [
            (pair._replace(live_class=numbers.get(live.get(pair.live_class, ""), -1)), number)
            for pair, number in labelled
            if number >= 0
        ]

    def _live_classes(self, rollout: Rollout) -> list[str]:
        """Return the live model's classes; the candidate's if the list names no live model."""
        live = slots(self.records.models).live
        return list(live.classes if live is not None else rollout.candidate.classes)

    def _read_labels(self) -> dict[FrameIdentity, str]:
        """Return the console's newest labels by frame; those before if the database does not answer."""
        newest = partial(newest_labels, limit=look_sizes(self._settings.rollout)[-1])
        found = read_console(self._settings.console_store, newest)
        return self._labels if found is None else found

    def _processor_rules(self, rollout: Rollout) -> tuple[RuleResult, ...]:
        """Return the rules on the candidate's load, its memory and its scan."""
        name = (rollout.candidate.digest, rollout.begun_ms)
        reports = [
            each
            for each in self.records.served.values()
            # A passing fault, such as a store that is not available, does not end the rollout.
            if (each.candidate_digest, each.candidate_begun_ms) == name and not each.candidate_retries
        ]
        refused = sum(bool(each.candidate_error) for each in reports)
        grown = max((each.candidate_bytes for each in reports), default=0)
        limit = self._settings.rollout.most_memory_bytes
        loads: Finding = "fails" if refused else "passes" if reports else "waits"
        memory: Finding = "fails" if grown > limit else "passes" if reports else "waits"
        scan: Finding = "waits" if rollout.by_rule else "not measured"
        if rollout.scan:
            scan = "passes" if json.loads(rollout.scan).get("clean") is True else "fails"
        return (
            RuleResult("load", loads, refused, None, None, 0, len(reports)),
            RuleResult("memory", memory, grown, None, None, limit, len(reports)),
            RuleResult("scan", scan, None, None, None, 0, 0),
        )

    async def _publish(self, rollout: Rollout, before: Assessment | None, now: Assessment) -> None:
        if self._signer is None or rollout.decider != self._signer.public:
            return
        if before is not None and before.outcome in (FAILED, PROMOTED):
            return
        decided = before is None or (before.outcome, before.slot) != (now.outcome, now.slot)
        if not decided and time.monotonic() - self._reported_s < _REPORT_S:
            return
        headers = event_headers(MODELS, SignedAssessment, f"assessment/{time.time_ns()}")
        record = PlainRecord(ASSESSMENT_KEY, seal_assessment(now, self._signer), headers)
        async with asyncio.timeout(_SEND_S):
            await self._sender.send(KafkaTopic.MODELS.value, [record], once=True)
        # The record comes back by the topic a little later, and must not be decided twice until then.
        self.records.apply_record(record.key, record.value)
        self._reported_s = time.monotonic()
        model_id = rollout.candidate.model_id
        if decided:
            log.info("candidate_assessed", model=model_id, slot=Slot.Name(now.slot), outcome=Outcome.Name(now.outcome))
        # Of those that decide nothing, the newest replaces the others.
        self._pending = [*(each for each in self._pending if each[2]), (now, model_id, decided)]

    def _save(self, save: Callable[[Connection], None]) -> None:
        """Change the recorder's database in one transaction."""
        engine = open_engine(self._settings.database, writes=True)
        try:
            with engine.begin() as connection:
                save(connection)
        finally:
            engine.dispose()

    def _save_assessment(self, assessment: Assessment, model_id: str, decided: bool) -> None:
        self._save(lambda each: save_rollout(each, assessment, model_id))
        if decided and self._settings.console_store:
            detail = f"{Slot.Name(assessment.slot).lower()}: {assessment.report}"
            with Store.opened(self._settings.console_store) as store:
                store.note("monitor", "rollout", model_id, detail, _OUTCOMES[assessment.outcome])

    def _set_metrics(self, assessment: Assessment | None, pairs: int) -> None:
        self._pair_count.set(pairs)
        for number, name in _OUTCOMES.items():
            self._outcome.labels(name.replace(" ", "_")).set(assessment is not None and assessment.outcome == number)

    async def close(self) -> None:
        """Close the connections."""
        with suppress(Exception):
            await self._sender.close(1.0)
        self._run_in_thread.close()


def decide(rollout: Rollout, report: Report) -> tuple[Outcome, Slot]:
    """Return the outcome of a report, and the slot that the candidate gets: one further if the list permits that."""
    if report.failed:
        return FAILED, rollout.slot
    if not report.passed:
        return MEASURING, rollout.slot
    if not rollout.by_rule:
        return PASSED, rollout.slot
    return (MEASURING, CANARY) if rollout.slot == SHADOW and rollout.cameras > 0 else (PROMOTED, rollout.slot)

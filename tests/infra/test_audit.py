"""The audit: a frame without a record is lost, and a frame in a spool or in Kafka is pending."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import struct
import tracemalloc
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from sqlalchemy.exc import DatabaseError

from consumers.conservation.balance import Counts
from consumers.database.engine import open_engine
from consumers.database.queries import Records
from consumers.database.tables import metadata
from consumers.records.batch import ledger_row
from consumers.records.rows import LedgerRow
from infra.audit.audit import audit, unsettled
from infra.audit.kafka_sets import KafkaSets
from infra.audit.report import Findings, Latency, Run, RunFigures, audit_report, report
from infra.state_folder import Layout
from producers.spool import Spool
from schemas.errors import SecretError, StateError
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing, derive_camera_key
from schemas.messages.frame import Encoding, encode_frame, sign_message
from schemas.messages.server_messages import sign_statement
from schemas.pointillist_pb2 import Ledger, Range, Verdict
from tests.infra.command_line import refusal, run

CAMERA = CameraId("site/cam")
BOOT = 77


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Create a state folder with an empty database."""
    found = Layout(tmp_path)
    engine = open_engine(found.database_url, writes=True)
    metadata.create_all(engine)
    engine.dispose()
    found.fleet_secret()
    return found


def write(layout: Layout, table: str, **values: object) -> None:
    names, marks = ", ".join(f'"{name}"' for name in values), ", ".join("?" for _ in values)
    with sqlite3.connect(layout.database) as connection:
        connection.execute(f"insert into {table} ({names}) values ({marks})", tuple(values.values()))


def record(layout: Layout, *seqs: int) -> None:
    with sqlite3.connect(layout.database) as connection:
        columns = [row[1] for row in connection.execute("pragma table_info(frames)")]
    for seq in seqs:
        fixed: dict[str, object] = {
            "camera": CAMERA,
            "boot": BOOT,
            "seq": seq,
            "class_name": "",
            "model_id": "",
            "policy": "",
        }
        write(layout, "frames", **{name: fixed.get(name, 0) for name in columns})


def publish(
    layout: Layout,
    following: int,
    shed: str = "[]",
    confirmed_to: int | None = None,
    boot: int = BOOT,
    secret: bytes | None = None,
) -> None:
    """Write a ledger as the recorder does, signed under the fleet's secret or under `secret`."""
    ledger = Ledger(
        boot_id=boot, revision=1, started_ms=1000, first=0, next=following, closed=True,
        shed=[Range(first=first, last=last) for first, last in json.loads(shed)],
        frames_skipped=2, frames_resent=1, bytes_resent=10, written_ms=2000,
        confirmed_to=following if confirmed_to is None else confirmed_to,
    )  # fmt: skip
    message = sign_message(derive_camera_key(secret or layout.fleet_secret(), CAMERA), ledger)
    write(layout, "ledgers", **ledger_row((CAMERA, boot), ledger, message)._asdict())


def test_a_ledger_without_a_valid_signature_loses_no_frame_and_is_named(layout: Layout) -> None:
    publish(layout, 3)
    record(layout, 0, 1, 2)
    publish(layout, 999_900, boot=78, secret=b"the secret of another fleet")
    found = audit(layout)
    assert (found.counts().frames_published, found.counts().frames_lost) == (3, 0)
    assert found.ledgers_refused == [(CAMERA, 78)]
    done = run("audit", "--state", layout.folder)
    assert done.exit_code == 0
    assert "site/cam boot 000000000000004e" in done.stdout


def test_columns_of_a_ledger_that_differ_from_its_signed_message_are_ignored(layout: Layout) -> None:
    publish(layout, 3)
    record(layout, 0, 1, 2)
    with sqlite3.connect(layout.database) as connection:
        connection.execute("update ledgers set next = 999900")
    assert audit(layout).counts().frames_lost == 0


def test_an_audit_without_the_fleet_secret_names_the_missing_secret(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POINTILLIST_FLEET_SECRET", raising=False)
    monkeypatch.delenv("POINTILLIST_FLEET_SECRET_FILE", raising=False)
    layout.secret_file.unlink()
    with pytest.raises(SecretError, match="the secret of the role auditor is missing"):
        audit(layout)


def test_no_frame_is_lost_if_all_are_recorded(layout: Layout) -> None:
    publish(layout, 3)
    record(layout, 0, 1, 2)
    counts = audit(layout).counts()
    assert (counts.frames_published, counts.frames_recorded, counts.frames_lost, counts.frames_pending) == (3, 3, 0, 0)
    assert (counts.frames_skipped, counts.bytes_resent) == (2, 10)
    assert unsettled(layout) == 0


def test_a_confirmed_frame_without_a_record_is_lost_and_fails_the_command(layout: Layout) -> None:
    publish(layout, 3)
    record(layout, 0, 2)
    found = audit(layout)
    assert list(found.boots[0].lost) == [1]
    assert unsettled(layout) == 1
    done = run("audit", "--state", layout.folder)
    assert done.exit_code == 1
    assert "(1, 1)" in done.stdout


def test_shed_and_dead_lettered_frames_are_accounted_for(layout: Layout) -> None:
    publish(layout, 4, shed="[[1, 1]]")
    record(layout, 0, 3)
    with sqlite3.connect(layout.database) as connection:
        columns = [row[1] for row in connection.execute("pragma table_info(dead_letters)")]
    fixed: dict[str, object] = {"camera": CAMERA, "boot": BOOT, "seq": 2, "verified": True, "payload": b""}
    write(layout, "dead_letters", **{name: fixed.get(name, "") for name in columns})
    counts = audit(layout).counts()
    assert (counts.frames_shed, counts.frames_dead_lettered, counts.frames_lost) == (1, 1, 0)


def test_a_frame_both_shed_and_recorded_counts_as_recorded(layout: Layout) -> None:
    publish(layout, 2, shed="[[0, 1]]")
    record(layout, 0)
    counts = audit(layout).counts()
    assert (counts.frames_recorded, counts.frames_shed, counts.frames_lost) == (1, 1, 0)


def test_an_unconfirmed_frame_is_pending_and_a_confirmed_one_without_a_record_is_lost(layout: Layout) -> None:
    publish(layout, 10, confirmed_to=6)
    record(layout, 0, 1, 2, 3, 5)
    boot = audit(layout).boots[0]
    assert list(boot.lost) == [4]
    assert list(boot.pending) == [6, 7, 8, 9]


def test_frames_in_a_local_spool_are_pending(layout: Layout) -> None:
    layout.issue_key(CAMERA)
    spool = Spool(layout.spool / CAMERA, CAMERA)
    picture = np.zeros((8, 8, 3), np.uint8)
    for seq in range(3):
        payload = encode_frame(layout.camera_key(CAMERA), spool.current.boot_id, seq, 1, picture, Encoding())
        spool.append(payload, seq, 1, picture.nbytes)
    try:
        counts = audit(layout).counts()
        assert (counts.frames_published, counts.frames_pending, counts.frames_lost) == (3, 3, 0)
        assert unsettled(layout) == 3
        assert unsettled(layout, since_ms=spool.current.started_ms + 1) == 0
    finally:
        spool.close()


def test_boots_of_earlier_runs_can_be_left_out(layout: Layout) -> None:
    publish(layout, 3)
    record(layout, 0)
    assert audit(layout).counts(since_ms=1001).frames_published == 0
    assert unsettled(layout, since_ms=1001) == 0


def test_frames_of_earlier_runs_are_unsettled_while_kafka_holds_them_and_not_if_they_are_lost(layout: Layout) -> None:
    publish(layout, 3)
    record(layout, 0)
    write_log(layout, "pointillist.verdicts.v1", [verdict(layout, 1)])
    assert unsettled(layout, since_ms=1001) == 1
    record(layout, 1)
    assert list(audit(layout).boots[0].lost) == [2]
    assert unsettled(layout, since_ms=1001) == 0


def test_a_folder_without_a_database_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="--state: expected a state folder"):
        audit(Layout(tmp_path))


def test_a_database_of_another_version_is_one_error_line(layout: Layout) -> None:
    write(layout, "alembic_version", version_num="99")
    with sqlite3.connect(layout.database) as connection:
        connection.execute("alter table ledgers drop column message")
    line = refusal(run("audit", "--state", layout.folder))
    assert line.startswith("expected a database of version ")
    assert "a later release has made: go on with that release, or start again" in line


def write_log(layout: Layout, topic: str, *batches: list[tuple[bytes, bytes]], partition: int = 0) -> Path:
    """Write Kafka's log of a partition. Each batch is a list of keys and values."""
    file = layout.kafka_data / f"{topic}-{partition}" / f"{0:020d}.log"
    file.parent.mkdir(parents=True)
    offset, content = 0, b""
    for batch in batches:
        builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 2**20)
        for number, (key, value) in enumerate(batch):
            builder.append(number, 1000, key, value, [])
        built = bytearray(builder.build())
        struct.pack_into(">q", built, 0, offset)
        offset += len(batch)
        content += built
    file.write_bytes(content)
    return file


def verdict(layout: Layout, seq: int) -> tuple[bytes, bytes]:
    keys = KeyRing(layout.fleet_secret())
    return CAMERA.encode(), sign_statement(keys, CAMERA, Verdict(boot_id=BOOT, seq=seq))


def test_an_invalid_record_is_named_and_the_others_are_counted(layout: Layout) -> None:
    publish(layout, 3)
    record(layout, 0)
    write_log(
        layout, "pointillist.verdicts.v1", [verdict(layout, 1), (CAMERA.encode(), b"\xff" * 9), verdict(layout, 2)]
    )
    write_log(layout, "pointillist.dead-letters.v1", [(b"", b"\xff" * 9)])
    found = audit(layout)
    counts = found.counts()
    assert (counts.frames_pending, counts.frames_lost, counts.frames_foreign) == (2, 0, 2)
    assert len(found.unread) == 2
    assert "verdicts" in found.unread[0]
    assert "offset 1" in found.unread[0]
    assert "dead-letters" in found.unread[1]


def test_a_damaged_batch_in_kafka_s_log_is_named_and_later_batches_are_counted(layout: Layout) -> None:
    publish(layout, 5)
    record(layout, 0)
    file = write_log(layout, "pointillist.verdicts.v1", *([verdict(layout, seq)] for seq in (1, 2, 3, 4)))
    content = bytearray(file.read_bytes())
    content[len(content) // 4 + 70] ^= 4  # in the body of the second of four batches, all of one length
    file.write_bytes(content)
    found = audit(layout)
    assert list(found.boots[0].pending) == [1, 3, 4]
    assert list(found.boots[0].lost) == [2]
    (line,) = found.unread
    assert "pointillist.verdicts.v1-0" in line
    assert "offset 1" in line


@pytest.mark.parametrize("place", [7, 8, 11, 16])
def test_a_damaged_length_or_version_of_a_batch_does_not_hide_later_batches(layout: Layout, place: int) -> None:
    publish(layout, 4)
    record(layout, 0)
    file = write_log(layout, "pointillist.verdicts.v1", *([verdict(layout, seq)] for seq in (1, 2, 3)))
    content = bytearray(file.read_bytes())
    content[len(content) // 3 + place] ^= 64
    file.write_bytes(content)
    found = audit(layout)
    assert list(found.boots[0].pending) == [1, 3]
    assert len(found.unread) == 1


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100])
def test_an_empty_or_damaged_database_is_named_and_frames_in_spools_and_kafka_are_counted(
    layout: Layout, content: bytes
) -> None:
    layout.database.write_bytes(content)
    write_log(layout, "pointillist.verdicts.v1", [verdict(layout, 0), verdict(layout, 1)])
    found = audit(layout)
    assert list(found.boots[0].pending) == [0, 1]
    assert found.unread
    assert all("pointillist.sqlite" in line for line in found.unread)
    done = run("audit", "--state", layout.folder)
    assert "unread: pointillist.sqlite" in done.stdout


def test_frames_with_damaged_records_are_unread_and_not_lost(layout: Layout) -> None:
    publish(layout, 3)
    with sqlite3.connect(layout.database) as connection:
        connection.execute("drop table frames")
    found = audit(layout)
    counts = found.counts()
    assert (counts.frames_published, counts.frames_lost, counts.frames_unread) == (3, 0, 3)
    done = run("audit", "--state", layout.folder, "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["frames_unread"] == 3


def test_a_database_set_aside_is_named_and_its_frames_without_a_record_are_unread(
    layout: Layout,
) -> None:
    publish(layout, 3)
    record(layout, 0)
    aside = layout.database.with_name(f"{layout.database.name}.damaged-500")
    aside.touch()
    assert audit(layout).counts().frames_lost == 2
    later = aside.with_name(f"{layout.database.name}.damaged-1500")
    aside.rename(later)
    found = audit(layout)
    assert (found.counts().frames_lost, found.counts().frames_unread) == (0, 2)
    assert [line.partition(":")[0] for line in found.unread] == [later.name]


def test_reports_have_the_documented_fields_even_with_a_damaged_database(
    layout: Layout,
) -> None:
    publish(layout, 3)
    record(layout, 0, 1)
    counts, measured, run = (
        [field.name for field in dataclasses.fields(kind)] for kind in (Counts, RunFigures, Run)
    )  # fmt: skip
    found = audit(layout)
    document = report(found, layout, 0, 0, 1.5, {"bridge": 1})
    assert list(document) == [*counts, *measured, *run]
    assert (document["frames_published"], document["frames_recorded"], document["frames_measured"]) == (3, 2, 2)
    assert document["latency_s"].keys() == Latency.__annotations__.keys()
    written = audit_report(found, None)
    assert list(written) == [*counts, *(field.name for field in dataclasses.fields(Findings))]
    assert written["lost"] == [{"camera_id": CAMERA, "boot_id": f"{BOOT:016x}", "ranges": [(2, 2)]}]
    with sqlite3.connect(layout.database) as connection:
        connection.execute("drop table frames")
    document = report(audit(layout), layout, 0, 0, 1.5, {})
    assert list(document) == [*counts, *measured, *run]
    assert document["frames_measured"] is None
    assert document["restarts"] == {}


OTHER = CameraId("site/other")


def write_foreign_ledger(layout: Layout, boot: int, message: bytes) -> None:
    """Write a ledger of the camera OTHER with any message to the database."""
    row = ledger_row((OTHER, boot), Ledger(boot_id=boot, revision=1, next=2**40, confirmed_to=2**40), message)
    write(layout, "ledgers", **row._asdict())


def test_hostile_ledgers_affect_only_their_own_camera(layout: Layout) -> None:
    publish(layout, 3)
    record(layout, 0, 2)
    ranges = [Range(first=2 * n, last=2 * n) for n in range(10_000)]
    key = derive_camera_key(layout.fleet_secret(), OTHER)
    impossible = Ledger(boot_id=2, revision=1, next=2**50, confirmed_to=2**50)
    write_foreign_ledger(layout, 1, sign_message(key, Ledger(boot_id=1, revision=1, next=20_000, shed=ranges)))
    write_foreign_ledger(layout, 2, sign_message(key, impossible))
    write_foreign_ledger(layout, 3, sign_message(key, Ledger(boot_id=3, revision=1, next=5, confirmed_to=5)))
    found = audit(layout)
    assert sorted(found.ledgers_refused) == [(OTHER, 1), (OTHER, 2)]
    lost = {(boot.camera_id, boot.boot_id): list(boot.lost) for boot in found.boots if boot.lost}
    assert lost == {(CAMERA, BOOT): [1], (OTHER, 3): [0, 1, 2, 3, 4]}
    assert unsettled(layout, of=[CAMERA]) == 1


def test_a_camera_with_unreadable_ledgers_does_not_affect_the_others(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(layout, 3)
    record(layout, 0, 2)
    write_foreign_ledger(layout, 1, b"")
    read = Records.ledgers

    def damaged(self: Records, of: Collection[str] | None = None) -> Iterator[LedgerRow]:
        if of is None or OTHER in of:
            raise DatabaseError("select", None, sqlite3.DatabaseError("database disk image is malformed"))
        yield from read(self, of)

    monkeypatch.setattr(Records, "ledgers", damaged)
    found = audit(layout)
    assert [(boot.camera_id, list(boot.lost)) for boot in found.boots if boot.lost] == [(CAMERA, [1])]
    assert [line for line in found.unread if "the ledgers of site/other" in line]
    assert not [line for line in found.unread if CAMERA in line]


def test_ledgers_are_read_in_small_batches(layout: Layout) -> None:
    publish(layout, 3)
    record(layout, 0, 1, 2)
    with sqlite3.connect(layout.database) as connection:
        row = ledger_row((OTHER, 0), Ledger(boot_id=1, revision=1), bytes(100_000))._asdict()
        marks = ", ".join("?" for _ in row)
        connection.executemany(
            f"insert into ledgers ({', '.join(row)}) values ({marks})",
            (tuple((row | {"boot": boot}).values()) for boot in range(1, 501)),
        )
    tracemalloc.start()
    found = audit(layout)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.ledgers_refused) == 500
    assert found.counts().frames_recorded == 3
    assert peak < 25_000_000  # all of them are 50 MB


def test_a_ledger_that_was_copied_to_another_boot_counts_no_frame(layout: Layout) -> None:
    publish(layout, 3)
    record(layout, 0, 1, 2)
    with sqlite3.connect(layout.database) as connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(ledgers)")]
        copied = dict(zip(names, connection.execute("SELECT * FROM ledgers").fetchone(), strict=True))
    write(layout, "ledgers", **copied | {"boot": 78})
    found = audit(layout)
    assert (found.counts().frames_published, found.counts().frames_lost) == (3, 0)
    assert found.ledgers_refused == [(CAMERA, 78)]


def test_frames_that_a_readable_spool_lacks_are_lost(layout: Layout) -> None:
    layout.issue_key(CAMERA)
    spool, picture = Spool(layout.spool / CAMERA, CAMERA), np.zeros((8, 8, 3), np.uint8)
    boot = spool.current.boot_id
    for seq in range(3):
        payload = encode_frame(layout.camera_key(CAMERA), boot, seq, 1, picture, Encoding())
        spool.append(payload, seq, 1, picture.nbytes)
    try:
        publish(layout, 5, confirmed_to=0, boot=boot)
        (found,) = audit(layout).boots
        assert (list(found.pending), list(found.lost)) == ([0, 1, 2], [3, 4])
    finally:
        spool.close()


def test_a_frame_that_is_published_during_the_audit_is_not_lost(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(layout, 3)
    record(layout, 0, 1, 2)
    read = KafkaSets.read

    def later(*arguments: Any) -> Any:
        found = read(*arguments)
        with sqlite3.connect(layout.database) as connection:
            connection.execute("DELETE FROM ledgers")
        publish(layout, 5)  # two more frames, which came into Kafka after it was read
        return found

    monkeypatch.setattr(KafkaSets, "read", later)
    assert audit(layout).counts().frames_lost == 0


def test_a_recorded_dead_letter_of_kafka_counts_once(layout: Layout) -> None:
    write_log(layout, "pointillist.dead-letters.v1", [(b"", b"\xff" * 9)])
    write(layout, "offsets", topic="pointillist.dead-letters.v1", partition=0, next=1, epoch=0)
    assert audit(layout).counts().frames_foreign == 0

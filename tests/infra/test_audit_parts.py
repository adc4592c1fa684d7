"""The audit's reader of Kafka's files, and its printed tables."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from consumers.records.rows import SummedRow
from infra.audit.audit import Audit
from infra.audit.kafka_files import fullest, read_partition
from infra.cli.audit import _print_tables
from tests.kafka_files import misnamed_batch

CONTROL_ATTRIBUTES = 0x30
"""The attributes of a control batch of a transaction."""


def write_segment(folder: Path, *offsets: int, epoch: int = 0, attributes: int = 0) -> Path:
    """Write a segment with one record in each batch, named by its first offset."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{offsets[0]:020d}.log"
    content = b""
    for offset in offsets:
        builder = DefaultRecordBatchBuilder(2, 0, bool(attributes), -1, -1, -1, 2**20)
        builder.append(0, 1000, b"key", b"%d" % offset, [])
        built = bytearray(builder.build())
        struct.pack_into(">q", built, 0, offset)
        struct.pack_into(">i", built, 12, epoch)
        if attributes:
            struct.pack_into(">h", built, 21, attributes)
            struct.pack_into(">I", built, 17, calc_crc32c(bytes(built[21:])))
        content += built
    file.write_bytes(content)
    return file


@pytest.mark.parametrize(("error", "lines"), [(FileNotFoundError(2, "deleted"), 0), (PermissionError(13, "no"), 1)])
def test_a_deleted_segment_is_skipped_and_an_unreadable_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, lines: int
) -> None:
    broken_segment = write_segment(tmp_path / "topic-0", 0, 1)
    write_segment(tmp_path / "topic-0", 2)
    read = Path.read_bytes

    def reading(file: Path) -> bytes:
        if file == broken_segment:
            raise error
        return read(file)

    monkeypatch.setattr(Path, "read_bytes", reading)
    unread: list[str] = []
    assert [each.value for each in read_partition(broken_segment.parent, 0, unread)] == [b"2"]
    assert unread == [f"Kafka topic-0: {broken_segment.name} cannot be read: no"] * lines


def test_the_replica_with_the_latest_readable_epoch_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    longer = write_segment(tmp_path / "1" / "topic-0", 0, 1, 2, epoch=3).parent
    later = write_segment(tmp_path / "2" / "topic-0", 0, 1, epoch=4).parent
    assert fullest([longer, later]) == later
    newest = write_segment(longer, 3, epoch=5)
    assert fullest([longer, later]) == longer
    read = Path.read_bytes

    def reading(file: Path) -> bytes:
        if file == newest:
            raise PermissionError
        return read(file)

    monkeypatch.setattr(Path, "read_bytes", reading)
    assert fullest([longer, later]) == later


def test_control_batches_of_transactions_are_not_records(tmp_path: Path) -> None:
    folder = write_segment(tmp_path / "topic-0", 0).parent
    write_segment(folder, 1, attributes=CONTROL_ATTRIBUTES)
    write_segment(folder, 2)
    unread: list[str] = []
    assert [each.value for each in read_partition(folder, 0, unread)] == [b"0", b"2"]
    assert unread == []


def test_a_batch_with_an_unknown_codec_is_named_and_later_batches_are_read(tmp_path: Path) -> None:
    folder = write_segment(tmp_path / "topic-0", 0).parent
    write_segment(folder, 1, attributes=7)
    write_segment(folder, 2)
    unread: list[str] = []
    assert [each.value for each in read_partition(folder, 0, unread)] == [b"0", b"2"]
    assert unread == ["Kafka topic-0: the batch at offset 1: UnsupportedCodecError: Unknown compression codec 0x07"]


def test_a_batch_with_a_header_name_that_is_not_text_is_named_and_later_batches_are_read(tmp_path: Path) -> None:
    folder = write_segment(tmp_path / "topic-0", 2).parent
    (folder / f"{0:020d}.log").write_bytes(misnamed_batch([b"0", b"1"], 0))
    unread: list[str] = []
    assert [each.value for each in read_partition(folder, 0, unread)] == [b"2"]
    assert len(unread) == 1
    assert unread[0].startswith("Kafka topic-0: the batch at offset 0: 'utf-8' codec can't decode")


def test_an_incomplete_last_batch_is_ignored(tmp_path: Path) -> None:
    """Ignore a last batch that Kafka is still writing: it has a header and no end."""
    whole = write_segment(tmp_path / "topic-0", 0)
    cut = write_segment(tmp_path / "other", 1).read_bytes()
    whole.write_bytes(whole.read_bytes() + cut[:-1])
    unread: list[str] = []
    assert [each.value for each in read_partition(whole.parent, 0, unread)] == [b"0"]
    assert unread == []


def test_the_printed_tables_have_the_accuracy_of_attacked_cameras_and_losses_of_summed_boots(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    summed = SummedRow("site/cam", *(0,) * (len(SummedRow._fields) - 1))
    found = Audit([], 0, 0, None, [], summed=(summed._replace(lost=4), summed._replace(camera="site/well")))
    attacked: Any = {"site/cam": {"frames": 8, "accuracy": 0.5, "accuracy_clean": None}}
    _print_tables(found, attacked)
    out = capsys.readouterr().out
    (row,) = (line for line in out.splitlines() if "site/cam " in line and "│" in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == ["site/cam", "8", "50.0%", "-"]
    assert "lost: site/cam: 4 frames of boots whose ledgers are summed\n" in out
    assert "site/well" not in out

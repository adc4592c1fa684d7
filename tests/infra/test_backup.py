"""Backups: a restored folder equals the snapshot, and damaged, foreign or unsafe backups are rejected."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sqlite3
import stat
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem  # type: ignore[import-untyped]  # no types
from sqlalchemy import func, select

from benchmarks.harness.postgresql import PostgreSQL
from consumers.console.data.rollup import summed_to
from consumers.console.data.store import Store
from consumers.database.archive import Archive
from consumers.database.console_store import LOGS
from consumers.database.dead_letters import DeadLetters
from consumers.database.engine import open_engine
from consumers.database.queries import open_records
from consumers.database.snapshot import Offsets, restore_postgresql, snapshot
from consumers.database.tables import alerts, metadata, offsets, tallies
from consumers.database.tallies import Tallies
from consumers.records.rows import LetterRow
from consumers.settings import Bounds
from infra.cli.backup import backup as write_sealed
from infra.cli.backup import restore as restore_sealed
from infra.local.kafka_quorum import Quorum
from infra.local.ports import Ports
from infra.local.role_table import RoleTable
from infra.state_folder import Layout, backup, backup_format, passphrase, restore
from infra.state_folder.backup import write_backup
from infra.state_folder.backup_format import DATABASE, FORMAT, LEFT_OUT, Manifest
from infra.state_folder.identity_lock import LOCK_FILE
from infra.state_folder.restore import find_backup, restore_backup
from schemas.clock import unix_ms
from schemas.errors import ConfigError, SecretError, StateError
from schemas.identity import CameraId
from schemas.ranges import RangeSet
from schemas.runtime.file_lock import lock_file
from schemas.topics import KafkaTopic
from tests.infra.command_line import refusal, run
from tests.waiting import PATIENCE_S

VERDICTS = KafkaTopic.VERDICTS.value
PASSPHRASE = "a long enough passphrase"


def fill_state(layout: Layout) -> Layout:
    """Fill a state folder with both databases, keys, settings, and files that a backup leaves out."""
    layout.folder.mkdir(parents=True)
    engine = open_engine(layout.database_url, writes=True)
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(offsets.insert(), {"topic": VERDICTS, "partition": 3, "next": 0, "epoch": 1})
    engine.dispose()
    store = Store(layout.console_url)
    store.prepare()
    store.note("local", "mute", "site/cam", "1h", "done")
    store.close()
    layout.signer()
    layout.issue_key(CameraId("site/cam"))
    for name in ("quarantine/site/cam/1.png", "models/x/model.toml", "settings/recorder.toml", "kafka-nodes.json"):
        file = layout.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode() * 5000)
    for name in ("kafka/data/0.log", "kafka-2/data/0.log", "spool/site/cam/1", "logs/recorder.log", "cache/models/x"):
        file = layout.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("not in a backup")
    return layout


@pytest.fixture(autouse=True)
def cheap_key_derivation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make key derivation cheap, whose usual cost slows attackers."""
    monkeypatch.setattr(passphrase, "COST", 2**10)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return fill_state(Layout(tmp_path / "state"))


def files(folder: Path) -> dict[str, str]:
    """Return the mode and the digest of each file outside the databases."""
    return {
        str(file.relative_to(folder)): f"{stat.S_IMODE(file.stat().st_mode):o} "
        + hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file() and ".sqlite" not in file.name
    }


@pytest.mark.parametrize("sealed_by", [None, PASSPHRASE])
def test_a_restored_folder_holds_keys_settings_and_both_databases(
    layout: Layout, tmp_path: Path, sealed_by: str | None
) -> None:
    place, written = write_backup(layout, str(tmp_path / "to"), "1.2.3", passphrase=sealed_by)
    assert find_backup(str(tmp_path / "to")) == place
    fresh = Layout(tmp_path / "fresh")
    fresh.folder.mkdir()
    assert restore_backup(fresh, place, passphrase=sealed_by) == written
    assert written.offsets == {VERDICTS: {3: 0}}
    before, after = files(layout.folder), files(fresh.folder)
    absent = {name for name in before if name.split("/")[0] in {"kafka", "kafka-2", "spool", "logs", "cache"}}
    assert len(absent) == 5
    assert after == {
        name: each for name, each in before.items() if name not in absent and not name.endswith((".lock", "/lock"))
    }
    assert fresh.signer().export() == layout.signer().export()
    with Store.opened(fresh.console_url) as store:
        assert [each.subject for each in store.newest_operations()] == ["site/cam"]


def test_a_cursor_of_the_time_before_a_restore_begins_at_the_oldest_line_of_the_audit_log(
    layout: Layout, tmp_path: Path
) -> None:
    with Store.opened(layout.console_url) as store:
        _, cursor = store.operations_after([0] * len(LOGS), None, 100)
        place, _ = write_backup(layout, str(tmp_path / "to"), "1.2.3")
    fresh = Layout(tmp_path / "fresh")
    fresh.folder.mkdir()
    restore_backup(fresh, place)
    with Store.opened(fresh.console_url) as store:
        lines, _ = store.operations_after(cursor, None, 100)
    assert [each.subject for each in lines] == ["site/cam"]


@pytest.mark.parametrize(
    "name", ["fleet.secret", "settings/recorder.toml", "quarantine", "quarantine/site/cam", "keys/site"]
)
def test_files_behind_a_link_are_in_the_backup(layout: Layout, tmp_path: Path, name: str) -> None:
    moved, elsewhere = layout.folder / name, tmp_path / "elsewhere"
    kept = {file.relative_to(layout.folder): file.read_bytes() for file in (moved, *moved.rglob("*")) if file.is_file()}
    assert kept
    moved.rename(elsewhere)
    moved.symlink_to(elsewhere)
    place, _ = write_backup(layout, str(tmp_path / "to"), "1")
    fresh = Layout(tmp_path / "fresh")
    fresh.folder.mkdir()
    restore_backup(fresh, place)
    assert {file: (fresh.folder / file).read_bytes() for file in kept} == kept
    assert not (fresh.folder / name).is_symlink()


def test_the_folder_of_root_on_a_mounted_disk_is_not_saved(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = os.scandir

    def deny_lost_files(folder: Any) -> Any:
        if str(folder).endswith("lost+found"):
            raise PermissionError(13, "Permission denied", str(folder))
        return listed(folder)

    for folder in (layout.folder, layout.folder / "quarantine"):
        (folder / "lost+found").mkdir()
    monkeypatch.setattr(os, "scandir", deny_lost_files)
    place, written = write_backup(layout, str(tmp_path / "to"), "1")
    assert "lost+found" not in written.entries
    fresh = Layout(tmp_path / "fresh")
    (fresh.folder / "lost+found").mkdir(parents=True)
    restore_backup(fresh, place)
    assert [file.name for file in (fresh.folder / "quarantine").iterdir()] == ["site"]


def test_a_backup_that_names_the_folder_of_root_is_restored_next_to_one(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (layout.folder / "lost+found").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(backup_format, "LEFT_OUT", LEFT_OUT - {"lost+found"})
        place, written = write_backup(layout, str(tmp_path / "to"), "1")
    assert "lost+found" in written.entries
    fresh = Layout(tmp_path / "fresh")
    (fresh.folder / "lost+found").mkdir(parents=True)
    restore_backup(fresh, place)
    assert fresh.signer().export() == layout.signer().export()


@pytest.mark.parametrize("top", ["models", "models/x"])
def test_a_link_to_a_folder_above_it_is_one_error_line_and_leaves_no_backup(
    layout: Layout, tmp_path: Path, top: str
) -> None:
    link = layout.folder / "models" / "x" / "again"
    link.symlink_to(layout.folder / top)
    with pytest.raises(
        StateError,
        match=rf"^--state: expected no link to a folder that contains the link, got {link}\. [^\n]+$",
    ):
        write_backup(layout, str(tmp_path / "to"), "1")
    assert not list((tmp_path / "to").glob("*.backup"))


def test_a_dangling_link_is_one_error_line_and_leaves_no_backup(layout: Layout, tmp_path: Path) -> None:
    secret = layout.folder / "fleet.secret"
    secret.unlink()
    secret.symlink_to(tmp_path / "unmounted" / "fleet.secret")
    (layout.folder / "settings" / ".#recorder.toml").symlink_to("me@host.1")  # an editor's lock
    with pytest.raises(StateError, match=rf"^--state: expected a file behind the link {secret}, got none\. [^\n]+$"):
        write_backup(layout, str(tmp_path / "to"), "1")
    assert not list((tmp_path / "to").glob("*.backup"))
    secret.unlink()
    write_backup(layout, str(tmp_path / "to"), "1")


def test_a_damaged_database_is_one_error_line_and_leaves_no_backup(layout: Layout, tmp_path: Path) -> None:
    layout.database.write_bytes(b"SQLite format 3\0" + bytes(5000))
    with pytest.raises(StateError, match=r"^the database: expected a whole and readable one, got [^\n]+\.$"):
        write_backup(layout, str(tmp_path / "to"), "1")
    assert not list((tmp_path / "to").glob("*"))


def test_a_damaged_database_of_the_console_is_one_error_line_and_leaves_no_backup(
    layout: Layout, tmp_path: Path
) -> None:
    (layout.folder / "console.sqlite").write_bytes(bytes(5000))
    refused = refusal(run("backup", "--to", tmp_path / "to", "--state", layout.folder))
    assert refused.startswith("the console's database: expected a whole and readable one, got file is not a database")
    assert not (tmp_path / "to").exists()


def test_a_postgresql_that_does_not_answer_a_restore_is_one_error_line() -> None:
    with pytest.raises(StateError, match=r"^the database: expected one that answers, got [^\n]+\.$"):
        restore_postgresql("postgresql+psycopg://u@127.0.0.1:1/db", io.BytesIO())


def test_a_backup_during_writes_holds_exactly_the_rows_up_to_its_offsets(layout: Layout, tmp_path: Path) -> None:
    """Run a writer whose transactions each add a row and move the offset by one."""
    stop, begun = threading.Event(), threading.Event()

    def write() -> None:
        engine = open_engine(layout.database_url, writes=True)
        number = 0
        while not stop.is_set():
            number += 1
            with engine.begin() as connection:
                connection.execute(tallies.insert(), {"name": f"{number}", "value": 1})
                connection.execute(offsets.update().values(next=number))
            begun.set()
        engine.dispose()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert begun.wait(PATIENCE_S)
        backups = [write_backup(layout, str(tmp_path / f"to-{number}"), "1")[0] for number in range(3)]
    finally:
        stop.set()
        writer.join()
    for number, place in enumerate(backups):
        fresh = Layout(tmp_path / f"fresh-{number}")
        fresh.folder.mkdir()
        manifest = restore_backup(fresh, place)
        with sqlite3.connect(fresh.database) as connection:
            ((rows,),) = connection.execute("select count(*) from tallies")
            ((reached,),) = connection.execute("select next from offsets")
        assert rows == reached == manifest.offsets[VERDICTS][3] > 0


@pytest.mark.parametrize("sealed_by", [None, PASSPHRASE])
@pytest.mark.parametrize("cut", ["end", "half", "changed"])
def test_a_damaged_backup_restores_nothing(layout: Layout, tmp_path: Path, sealed_by: str | None, cut: str) -> None:
    place, _ = write_backup(layout, str(tmp_path / "to"), "1", passphrase=sealed_by)
    whole = Path(place).read_bytes()
    part = {"end": len(whole) * 9 // 10, "half": len(whole) // 2, "changed": len(whole)}[cut]
    damaged = bytearray(whole[:part])
    damaged[len(whole) // 3] ^= 1
    Path(place).write_bytes(damaged)
    fresh = Layout(tmp_path / "fresh")
    fresh.folder.mkdir()
    with pytest.raises((StateError, SecretError)) as caught:
        restore_backup(fresh, place, passphrase=sealed_by)
    assert len(str(caught.value).splitlines()) == 1
    assert not any(fresh.folder.iterdir())


def test_only_the_owner_can_read_a_backup_and_a_passphrase_hides_all_of_it(layout: Layout, tmp_path: Path) -> None:
    plain, sealed = tmp_path / "plain", tmp_path / "sealed"
    secret = layout.secret_file.read_bytes()
    for folder, sealed_by, found in ((plain, None, True), (sealed, PASSPHRASE, False)):
        folder.mkdir(mode=0o777)
        place, _ = write_backup(layout, str(folder), "1", passphrase=sealed_by)
        assert stat.S_IMODE(Path(place).stat().st_mode) == 0o600
        assert (secret in Path(place).read_bytes()) is found
        if sealed_by:
            with pytest.raises(SecretError, match="got another one"):
                restore_backup(Layout(tmp_path / "fresh"), place, passphrase="another long passphrase")


def test_a_passphrase_is_read_from_standard_input(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{PASSPHRASE}\n"))
    write_sealed(str(tmp_path / "to"), layout.folder, passphrase_file=Path("-"))
    [place] = (tmp_path / "to").iterdir()
    assert layout.secret_file.read_bytes() not in place.read_bytes()
    monkeypatch.setattr(sys, "stdin", io.StringIO(PASSPHRASE))
    restore_sealed(str(place), tmp_path / "fresh", passphrase_file=Path("-"))
    assert Layout(tmp_path / "fresh").fleet_secret() == layout.fleet_secret()


def test_the_commands_reject_unsafe_arguments(layout: Layout, tmp_path: Path) -> None:
    to, short = tmp_path / "to", tmp_path / "short"
    short.write_text("short\n")
    state = ("--state", layout.folder)
    assert "--passphrase-file" in refusal(run("backup", "--to", "memory://there", *state))
    assert "12 characters" in refusal(run("backup", "--to", to, *state, "--passphrase-file", short))
    assert "state folder" in refusal(run("backup", "--to", to, "--state", tmp_path / "none"))
    assert not list(to.glob("*"))
    done = run("backup", "--to", to, *state)
    assert done.exit_code == 0, done.output
    assert "0 records of Kafka" in done.output
    assert "expected a folder without" in refusal(run("restore", "--from", to, *state))
    with RoleTable(tmp_path / "used"):
        assert "held by pid" in refusal(run("restore", "--from", to, "--state", tmp_path / "used"))
    assert "does not exist" in refusal(run("restore", "--from", tmp_path / "gone", "--state", tmp_path / "fresh"))
    assert "no --database" in refusal(
        run("restore", "--from", to, "--state", tmp_path / "fresh", "--database", "postgresql+psycopg://a@b/c")
    )
    done = run("restore", "--from", to, "--state", tmp_path / "fresh")
    assert done.exit_code == 0, done.output


def test_a_folder_above_the_state_folder_is_rejected(tmp_path: Path) -> None:
    fill_state(Layout(tmp_path / "work" / ".pointillist"))
    to = tmp_path / "to"
    refused = refusal(run("backup", "--to", to, "--state", tmp_path / "work"))
    assert refused.startswith(f"--state: expected the state folder of a system, got {tmp_path / 'work'} without keys")
    assert not to.exists()
    assert [each.name for each in (tmp_path / "work").iterdir()] == [".pointillist"]


def test_the_state_folder_of_a_console_alone_is_saved(layout: Layout, tmp_path: Path) -> None:
    alone = Layout(tmp_path / "console")
    alone.folder.mkdir()
    shutil.copy(layout.folder / "console.sqlite", alone.folder)
    assert write_backup(alone, str(tmp_path / "to"), "1")[1].entries == ["console.sqlite"]


def test_the_saved_sums_of_the_console_are_not_ahead_of_the_recorder(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keep the console from counting twice the frames that a restored recorder records again."""

    def summed_meanwhile(url: str, target: Path) -> Offsets:
        offsets = snapshot(url, target)
        with sqlite3.connect(layout.folder / "console.sqlite") as connection:
            connection.execute("INSERT INTO console_marks (name, value) VALUES ('rolled_up_to', 7)")
        return offsets

    monkeypatch.setattr(backup, "snapshot", summed_meanwhile)
    place, _ = write_backup(layout, str(tmp_path / "to"), "1")
    fresh = Layout(tmp_path / "fresh")
    fresh.folder.mkdir()
    restore_backup(fresh, place)
    store = Store(fresh.console_url)
    with store.engine.begin() as connection:
        assert summed_to(connection) == 0
    store.close()


@pytest.mark.parametrize("inner", ["", "backups/daily", "../linked"])
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_backup_into_its_own_state_folder_is_rejected(
    layout: Layout, tmp_path: Path, inner: str, scheme: str
) -> None:
    (tmp_path / "linked").symlink_to(layout.folder / "backups")
    before = sorted(layout.folder.rglob("*"))
    refused = refusal(run("backup", "--to", f"{scheme}{layout.folder / inner}", "--state", layout.folder))
    assert refused.startswith("--to: expected a folder outside the state folder, got ")
    assert sorted(layout.folder.rglob("*")) == before


def test_a_restore_fills_a_folder_with_kafka_and_spools_and_replaces_no_files(layout: Layout, tmp_path: Path) -> None:
    place, manifest = write_backup(layout, str(tmp_path / "to"), "1")
    with pytest.raises(StateError, match="expected a folder without"):
        restore_backup(layout, place)
    assert layout.database.stat().st_size > 0
    for name in manifest.entries:
        entry = layout.folder / name
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for journal in list(layout.folder.glob("*.sqlite-*")):
        journal.unlink()
    restore_backup(layout, place)
    assert (layout.folder / "kafka" / "data" / "0.log").is_file()
    assert layout.camera_key(CameraId("site/cam"))
    with sqlite3.connect(layout.database) as connection:
        assert connection.execute("select partition, next from offsets").fetchall() == [(3, 0)]


@pytest.mark.parametrize("name", ["pointillist.sqlite", "console.sqlite"])
@pytest.mark.parametrize("ending", ["-wal", "-shm", "-journal"])
def test_a_journal_that_would_change_a_restored_database_is_rejected(
    layout: Layout, tmp_path: Path, name: str, ending: str
) -> None:
    place, _ = write_backup(layout, str(tmp_path / "to"), "1")
    fresh = Layout(tmp_path / "fresh")
    fresh.folder.mkdir()
    (fresh.folder / f"{name}{ending}").touch()
    with pytest.raises(StateError, match=f"expected a folder without {name}{ending}"):
        restore_backup(fresh, place)
    assert [each.name for each in fresh.folder.iterdir()] == [f"{name}{ending}"]


def letter(seq: int) -> LetterRow:
    """Return the first dead letter of a topic."""
    return LetterRow("letters", 0, 0, "decode", "bad_pixels", "", "site/cam", True, 1, seq, "", b"", 0, 10, 5, 5)


def record(url: str, row: LetterRow) -> tuple[list[LetterRow], RangeSet]:
    """Record a dead letter as the recorder does. Return the new letters, and the boot's dead-lettered frames."""
    engine = open_engine(url, writes=True)
    counts, bounds = Tallies(engine), Bounds()
    with engine.begin() as connection:
        archive = Archive(engine)
        new = DeadLetters(engine, archive, counts, bounds).record(connection, [row])
    with open_records(url) as records:
        found = records.dead_lettered("site/cam", 1)
    engine.dispose()
    return new, found


def test_a_restore_next_to_a_new_kafka_drops_the_offsets_and_restarts_the_dead_letters(
    layout: Layout, tmp_path: Path
) -> None:
    record(layout.database_url, letter(7))
    place, _ = write_backup(layout, str(tmp_path / "to"), "1")
    fresh = Layout(tmp_path / "fresh")
    fresh.folder.mkdir()
    restore_backup(fresh, place, new_kafka=True)
    with sqlite3.connect(fresh.database) as connection:
        assert connection.execute("select * from offsets").fetchall() == []
    new, refused = record(fresh.database_url, letter(8))
    assert [each.seq for each in new] == [8]
    assert refused == RangeSet([(7, 8)])


def test_three_nodes_of_a_new_kafka_start_with_empty_disks(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    Layout(state).fleet_secret()
    nodes = Quorum(state, Ports(state), 3)
    for number in (1, 2, 3):
        nodes.formatted(number)
    place, _ = write_backup(Layout(state), str(tmp_path / "to"), "1")
    kept, new = Layout(tmp_path / "kept"), Layout(tmp_path / "new")
    for restored in (kept, new):
        restored.folder.mkdir()
        restore_backup(restored, place, new_kafka=restored is new)
    assert Quorum(kept.folder, Ports(kept.folder), 3).controllers == nodes.controllers
    assert Quorum(new.folder, Ports(new.folder), 3).format_options(1)[0] == "--initial-controllers"


def test_a_state_folder_with_a_hash_in_its_name_is_saved(tmp_path: Path) -> None:
    layout = fill_state(Layout(tmp_path / "system #1"))
    place, written = write_backup(layout, str(tmp_path / "to"), "1")
    fresh = Layout(tmp_path / "fresh")
    fresh.folder.mkdir()
    assert restore_backup(fresh, place) == written
    assert written.offsets == {VERDICTS: {3: 0}}


def test_a_database_of_another_program_is_rejected(layout: Layout, tmp_path: Path) -> None:
    with sqlite3.connect(layout.database) as connection:
        connection.execute("DROP TABLE offsets")
    with pytest.raises(StateError, match="one without offsets"):
        write_backup(layout, str(tmp_path / "to"), "1")


def test_the_identity_lock_is_free_while_a_slow_store_is_written(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    (layout.folder / "keys" / "many").write_bytes(os.urandom(3 * 2**20))
    write, free = MemoryFile.write, []

    def writing(file: Any, data: bytes) -> int:
        try:
            os.close(lock_file(layout.folder / LOCK_FILE))
        except BlockingIOError:
            free.append(False)
        else:
            free.append(True)
        return int(write(file, data))

    monkeypatch.setattr(MemoryFile, "write", writing, raising=False)
    write_backup(layout, "memory://slow", "1", passphrase=PASSPHRASE)
    assert len(free) > 1
    assert all(free)


def test_a_backup_of_the_same_moment_replaces_no_other(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "unix_ms", lambda: 1_700_000_000_000)
    places = {write_backup(layout, str(tmp_path / "to"), "1")[0] for _ in range(2)}
    monkeypatch.setattr(backup, "unix_ms", lambda: 1_700_000_000_001)
    newest, _ = write_backup(layout, str(tmp_path / "to"), "1")
    assert {str(each) for each in (tmp_path / "to").iterdir()} == {*places, newest}
    assert len(places) == 2
    assert find_backup(str(tmp_path / "to")) == newest


@pytest.mark.parametrize("to", ["folder", "memory://future-backups"])
def test_a_folder_with_a_backup_dated_after_now_is_one_error_line_that_names_another(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    folder = to if "://" in to else str(tmp_path / to)

    def save(ahead_ms: int) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(backup, "unix_ms", lambda: unix_ms() + ahead_ms)
            return write_backup(layout, folder, "1", passphrase=PASSPHRASE)[0]

    ahead = save(10 * 60_000)
    with pytest.raises(StateError, match=r"got pointillist-.* Correct this machine's clock, or give a file\.$"):
        find_backup(folder)
    present = save(60_000)
    with pytest.raises(StateError) as refused:
        find_backup(folder)
    assert str(refused.value).startswith(
        f"--from: expected a folder without a backup dated after now, got {Path(ahead).name} in {folder}. "
        "Correct this machine's clock, or give "
    )
    assert str(refused.value).endswith(f"{present.removeprefix('memory:/')}, or another file.")
    assert find_backup(ahead) == ahead
    monkeypatch.setattr(restore, "unix_ms", lambda: unix_ms() + 10 * 60_000)
    assert Path(find_backup(folder)).name == Path(ahead).name


def test_a_failed_backup_to_a_url_leaves_no_newest_file(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "memory://failed-backups"
    place, _ = write_backup(layout, url, "1", passphrase=PASSPHRASE)

    def failing(*_: object) -> None:
        raise StateError("a lost disk")

    monkeypatch.setattr(backup, "_add_all", failing)
    monkeypatch.setattr(backup, "SUFFIX", "~.backup")
    with pytest.raises(StateError, match="a lost disk"):
        write_backup(layout, url, "1", passphrase=PASSPHRASE)
    monkeypatch.undo()
    assert find_backup(url).endswith(place.removeprefix("memory:/"))


@pytest.mark.parametrize(
    ("place", "named"),
    [("ftp://127.0.0.1:1/x", "ftp://127.0.0.1:1/x"), ("unknown://x", "the place of the backup")],
)
def test_a_server_that_does_not_answer_is_one_error_line(
    layout: Layout, tmp_path: Path, place: str, named: str
) -> None:
    (tmp_path / "pass").write_text(PASSPHRASE)
    sealed = ("--passphrase-file", tmp_path / "pass")
    for command in (
        ("backup", "--to", place, "--state", layout.folder, *sealed),
        ("restore", "--from", place, "--state", tmp_path / "fresh", *sealed),
    ):
        assert refusal(run(*command)).startswith(f"{named}: expected a ")


@pytest.mark.parametrize("broken", ["write", "close"])
def test_a_broken_upload_is_one_error_line_and_leaves_no_file(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def breaking(*_: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(MemoryFile, broken, breaking)
    with pytest.raises(
        StateError, match=r"^memory://broken: expected a folder or URL that answers, got BrokenPipeError: "
    ):
        write_backup(layout, "memory://broken", "1", passphrase=PASSPHRASE)
    assert not MemoryFileSystem().exists("/broken") or MemoryFileSystem().ls("/broken") == []


@pytest.mark.parametrize("at", [0, 100_000])
def test_the_error_of_a_broken_download_does_not_name_the_state_folder(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    place, _ = write_backup(layout, "memory://download", "1", passphrase=PASSPHRASE)
    read = MemoryFile.read

    def breaking(file: Any, *size: int) -> bytes:
        if file.tell() >= at:
            raise ConnectionResetError(104, "Connection reset by peer")
        return bytes(read(file, *size))

    monkeypatch.setattr(MemoryFile, "read", breaking, raising=False)
    (tmp_path / "fresh").mkdir()
    with pytest.raises(StateError, match="expected a folder or URL that answers, got ConnectionResetError: "):
        restore_backup(Layout(tmp_path / "fresh"), place, passphrase=PASSPHRASE)
    assert not any((tmp_path / "fresh").iterdir())


def test_a_full_disk_during_a_restore_is_one_error_line_and_leaves_no_files(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, _ = write_backup(layout, str(tmp_path / "to"), "1")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    (tmp_path / "fresh").mkdir()
    with pytest.raises(StateError, match=r"^--state: expected a writable folder with room for the backup, got .*28"):
        restore_backup(Layout(tmp_path / "fresh"), place)
    assert not any((tmp_path / "fresh").iterdir())


def test_the_error_for_an_unreadable_file_of_the_state_does_not_name_the_target(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def deny_settings(file: Path, *arguments: Any, **options: Any) -> Any:
        if file.name == "recorder.toml":
            raise PermissionError(13, "Permission denied", str(file))
        return opened(file, *arguments, **options)

    monkeypatch.setattr(Path, "open", deny_settings)
    with pytest.raises(StateError, match=r"^--state: .*recorder\.toml"):
        write_backup(layout, str(tmp_path / "to"), "1")
    assert not any((tmp_path / "to").iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^--to: "):
        write_backup(layout, str(tmp_path / "file"), "1")


def test_a_folder_that_vanishes_during_the_backup_is_skipped(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = os.scandir

    def vanishing(folder: Any) -> Any:
        if str(folder).endswith("quarantine/site"):
            shutil.rmtree(folder)
        return listed(folder)

    monkeypatch.setattr(os, "scandir", vanishing)
    place, _ = write_backup(layout, str(tmp_path / "to"), "1")
    monkeypatch.undo()
    fresh = Layout(tmp_path / "fresh")
    fresh.folder.mkdir()
    restore_backup(fresh, place)
    assert (fresh.folder / "settings" / "recorder.toml").is_file()
    assert not (fresh.folder / "quarantine").exists()


def test_only_the_sqlite_database_of_the_state_folder_is_saved(layout: Layout, tmp_path: Path) -> None:
    to, elsewhere = tmp_path / "to", tmp_path / "elsewhere.sqlite"
    shutil.copy(layout.database, elsewhere)
    refused = refusal(run("backup", "--to", to, "--state", layout.folder, "--database", f"sqlite:///{elsewhere}"))
    assert refused.startswith(f"--database: expected a PostgreSQL, got the SQLite {elsewhere}. ")
    assert not to.exists()
    _, manifest = write_backup(layout, str(to), "1", database=layout.database_url)
    assert layout.database.name in manifest.entries


@pytest.mark.parametrize("ending", ["", "-wal"])
def test_a_backup_with_a_separate_sqlite_replaces_no_existing_database(
    layout: Layout, tmp_path: Path, ending: str
) -> None:
    """Use the format in which earlier releases saved a SQLite outside the state folder."""
    place, fresh = tmp_path / "old.backup", Layout(tmp_path / "fresh")
    with place.open("wb") as output:
        manifest = Manifest(FORMAT, "1", 1, "sqlite", {}, [])
        backup._write_tar(output, layout, manifest, {DATABASE: layout.database}, [])
    fresh.folder.mkdir()
    existing = fresh.folder / f"{fresh.database.name}{ending}"
    existing.write_bytes(b"of another system")
    with pytest.raises(StateError, match=f"expected a folder without {existing.name}"):
        restore_backup(fresh, str(place))
    assert [(each, each.read_bytes()) for each in fresh.folder.iterdir()] == [(existing, b"of another system")]
    existing.unlink()
    restore_backup(fresh, str(place))
    assert fresh.database.read_bytes() == layout.database.read_bytes()


@pytest.mark.brokers
def test_a_backup_of_postgresql_is_restored_only_into_an_empty_one(
    postgresql: PostgreSQL, layout: Layout, tmp_path: Path
) -> None:
    url, other = postgresql.create("backed"), postgresql.create("restored")
    engine = open_engine(url, writes=True)
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(offsets.insert(), {"topic": VERDICTS, "partition": 0, "next": 77, "epoch": 2})
    engine.dispose()
    layout.database.unlink()
    place, manifest = write_backup(layout, str(tmp_path / "to"), "1", database=url)
    assert (manifest.database, manifest.offsets) == ("postgresql", {VERDICTS: {0: 77}})
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    restore_backup(Layout(tmp_path / "first"), place, database=other)
    restored = open_engine(other, writes=False)
    with restored.connect() as connection:
        assert connection.execute(select(offsets)).all() == [(VERDICTS, 0, 77, 2)]
        assert connection.scalar(select(func.count()).select_from(alerts)) == 0
    restored.dispose()
    with pytest.raises(StateError, match="expected an empty one"):
        restore_backup(Layout(tmp_path / "second"), place, database=other)
    assert not any((tmp_path / "second").iterdir())
    done = run("backup", "--state", layout.folder, "--to", tmp_path / "by-command", "--database", url)
    assert (done.exit_code, "not included: " in done.output) == (0, True)


def test_a_sealed_stream_with_missing_or_reordered_chunks_is_rejected() -> None:
    data = bytes(range(256)) * 4096 * 3  # three chunks
    sealed = io.BytesIO()
    output = passphrase.SealedOutput(sealed, PASSPHRASE)
    for start in range(0, len(data), 100_000):
        output.write(data[start : start + 100_000])
    output.close()
    whole = sealed.getvalue()
    head = len(passphrase.MAGIC) + 16
    chunk = (len(whole) - head) // 3

    def opened(sealed_bytes: bytes) -> bytes:
        source = io.BytesIO(sealed_bytes)
        assert source.read(len(passphrase.MAGIC)) == passphrase.MAGIC
        reading, found = passphrase.SealedInput(source, PASSPHRASE), b""
        while part := reading.read(333_333):
            found += part
        return found

    assert opened(whole) == data
    first, second, third = (whole[head + chunk * at : head + chunk * (at + 1)] for at in range(3))
    for wrong in (first + second, second + first + third, first + third, first + second + third + third):
        with pytest.raises(SecretError):
            opened(whole[:head] + wrong)

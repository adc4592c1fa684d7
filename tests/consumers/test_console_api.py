"""The REST API, and the export of verdicts."""

from __future__ import annotations

import csv
import io
import re
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sqlalchemy import delete, event, update
from starlette.routing import Route

from consumers.cameras.state import State
from consumers.console.access.rights import Right
from consumers.console.access.sight import ALL, Sight
from consumers.console.access.users import write_user
from consumers.console.api.operation import Operation
from consumers.console.api.routes import OPERATIONS, ROOT, document
from consumers.console.data.export import COLUMNS, as_csv, as_parquet, rows
from consumers.console.web import make_app
from consumers.database.console_store import AuditLog, marks, operations
from consumers.database.engine import SETTLED_MS
from consumers.database.tables import frames
from schemas.clock import unix_ms
from schemas.pointillist_pb2 import SCALED_NORMS
from tests.consumers.console_rig import ConsoleRig
from tests.consumers.recorder_rig import BOOT, CAMERA, Rig, verdict


def test_the_openapi_document_lists_exactly_the_routes(console: ConsoleRig) -> None:
    answer = console.browser().get(f"{ROOT}/openapi.json").json()
    assert answer == document()
    described = {(path, method.upper()) for path, entry in answer["paths"].items() for method in entry}
    known = [route for route in make_app(console.context).routes if isinstance(route, Route)]
    routes = [route for route in known if route.path.startswith(ROOT)]
    assert described == {(route.path, method) for route in routes for method in (route.methods or set()) - {"HEAD"}}
    for path, entry in answer["paths"].items():
        for operation in entry.values():
            in_path = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
            assert in_path == set(re.findall(r"{(\w+)}", path))


def test_cameras_are_listed_read_and_deleted(console: ConsoleRig) -> None:
    console.show([verdict(0)])
    browser = console.browser()
    listed = browser.get(f"{ROOT}/cameras?state=online").json()
    assert [each["name"] for each in listed["cameras"]] == [CAMERA]
    assert listed["counts"] == dict.fromkeys([*State, "away"], 0) | {"online": 1}
    assert browser.get(f"{ROOT}/cameras/{CAMERA}").json()["verdict"] == "stop"
    assert browser.get(f"{ROOT}/cameras/{CAMERA}/history").json()["outages"] == []
    sending = browser.post(f"{ROOT}/cameras/{CAMERA}/forget", json={})
    assert (sending.status_code, sending.json()["error"]) == (
        409, f"{CAMERA}: expected a camera that is gone, it is online",
    )  # fmt: skip
    console.tick(later_ms=60_000)
    assert browser.post(f"{ROOT}/cameras/{CAMERA}/forget", json={}).json() == {"outcome": "forgotten"}
    assert browser.get(f"{ROOT}/operations").json()[0]["what"] == "forget"


@pytest.mark.parametrize(
    "operation", [each for each in OPERATIONS if each.path.startswith("/cameras/{site}/{camera}")],
    ids=lambda each: f"{each.method} {each.path.rpartition('/')[2]}",
)  # fmt: skip
def test_an_unknown_camera_is_not_found_by_any_operation(console: ConsoleRig, operation: Operation) -> None:
    place = ROOT + operation.path.format(site="lab", camera="none")
    sent = {"for": "1h", "reason": "x"} if place.endswith("mute") else {}
    answer = console.browser().request(operation.method, place, json=sent if operation.method == "POST" else None)
    assert (answer.status_code, answer.json()) == (404, {"error": "camera: expected one of this fleet, got lab/none"})


def test_the_document_requires_the_fields_without_which_a_drop_policy_is_rejected(console: ConsoleRig) -> None:
    path = f"{ROOT}/drop-policies"
    schema = document()["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    whole = {"cameras": "lab/*", "lowest": 0.25, "highest": 0.5}
    assert sorted(schema["required"]) == sorted(whole)
    assert console.browser().post(path, json=whole).status_code == 200
    for name in whole:
        part = {key: value for key, value in whole.items() if key != name}
        assert console.browser().post(path, json=part).status_code == 400


def test_the_history_has_the_commands_and_models_of_its_time_range_only(
    console: ConsoleRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    console.show([verdict(0)])
    now_ms = unix_ms()
    for ago_s in (7200, 60):
        monkeypatch.setattr("consumers.console.data.store.unix_ms", lambda at_ms=now_ms - 1000 * ago_s: at_ms)
        console.context.store.note("anna", "command", CAMERA, f"{ago_s} s ago", "sent")
    changes_ms = [now_ms - 1000 * ago_s for ago_s in (7200, 60)]
    monkeypatch.setattr(type(console.context), "published_ms", lambda _: changes_ms)
    found = console.browser().get(f"{ROOT}/cameras/{CAMERA}/history?range=hour").json()
    assert [words for _, words in found["commands"]] == ["command 60 s ago"]
    assert found["models"] == changes_ms[1:]


def test_a_program_that_follows_the_cursor_reads_every_line_of_the_audit_log_once(
    console: ConsoleRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.console.api.routes._MOST_LINES", 8)
    store, browser = console.context.store, console.browser()
    now_ms = 0

    def write(first: int, count: int) -> list[str]:
        nonlocal now_ms
        for number in range(first, first + count):
            now_ms = 5_000 - 1_000 * number  # a clock that is set back
            store.note("anna", "command", "lab/door", f"anna {number}", "sent")
            store.note("unknown", "login", "", f"login {number}", "wrong password", log=AuditLog.LOGINS)
        return [f"{who} {number}" for number in range(first, first + count) for who in ("anna", "login")]

    monkeypatch.setattr("consumers.console.data.store.unix_ms", lambda: now_ms)
    written, read, after = write(0, 5), [], "0-0-0-0"
    for _ in range(4):
        answer = browser.get(f"{ROOT}/operations?after={after}")
        read += [each["detail"] for each in answer.json()]
        after = answer.headers["X-Pointillist-After"]
    assert sorted(read) == sorted(written)
    assert browser.get(f"{ROOT}/operations?after={after}").json() == []
    later = write(5, 1)
    assert sorted(each["detail"] for each in browser.get(f"{ROOT}/operations?after={after}").json()) == sorted(later)
    ours = browser.get(f"{ROOT}/operations?after=0-0-0-0&subject=lab/door").json()
    assert [each["detail"] for each in ours] == ["anna 1", "anna 0"]  # by time
    for wrong in ("", "0-0-0", "0-0-0-x", "0-0-0--1", f"0-0-0-{'9' * 30}"):
        answer = browser.get(f"{ROOT}/operations?after={wrong}")
        assert (answer.status_code, answer.json()["error"][:26]) == (400, "after: expected '0-0-0-0' ")


def test_a_cursor_of_another_database_begins_at_the_oldest_line_and_one_without_a_database_goes_on(
    console: ConsoleRig,
) -> None:
    store, browser = console.context.store, console.browser()

    def read(after: str) -> tuple[list[str], str]:
        answer = browser.get(f"{ROOT}/operations?after={after}")
        return [each["detail"] for each in answer.json()], answer.headers["X-Pointillist-After"]

    for number in range(3):
        store.note("anna", "command", "lab/door", f"old {number}", "sent")
    _, after = read("0-0-0-0")
    assert read("2-0-0-0") == (["old 2"], after)
    with store.engine.begin() as connection:  # as when a damaged file is set aside
        for table in (operations, marks):
            connection.execute(delete(table))
    for number in range(3):
        store.note("anna", "command", "lab/door", f"new {number}", "sent")
    lines, again = read(after)
    assert lines == ["new 0", "new 1", "new 2"]
    assert read(again) == ([], again)


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", f"{ROOT}/none", 404, "path: expected one of this console, got /api/v1/none"),
        ("POST", f"{ROOT}/audit", 405, "POST: Method Not Allowed"),
        ("GET", f"/dead-letters/topic/0/{'9' * 5_000}", 404, "path: expected one of this console, got /dead-letters/"),
    ],
)
def test_an_unknown_path_or_method_is_rejected_in_one_line(
    console: ConsoleRig, method: str, path: str, status: int, words: str
) -> None:
    answer = console.browser().request(method, path, json={} if method == "POST" else None)
    assert answer.status_code == status
    assert answer.json()["error"].startswith(words)


@pytest.mark.parametrize(
    ("method", "path", "sent"),
    [
        ("GET", f"{ROOT}/operations?subject=%00", {}),
        ("GET", "/camera/lab%00/door/history", {}),
        ("POST", f"{ROOT}/dead-letters/replay", {"json": {"reason": "a\0b"}}),
        ("POST", "/teach/cameras", {"data": {"camera": "lab/\0", "wanted": "no"}}),
    ],
)
def test_a_text_with_a_null_character_is_rejected(
    console: ConsoleRig, method: str, path: str, sent: dict[str, Any]
) -> None:
    if "data" in sent:
        sent = {"data": sent["data"] | {"csrf": console.csrf()}}
    answer = console.browser().request(method, path, **sent)
    assert answer.status_code == 400
    assert "expected" in answer.json()["error"]


@pytest.mark.parametrize("path", ["/dead-letters/topic/0/{}", "/models/differences/1/{}/1/lab/door.jpg"])
def test_a_number_too_large_for_the_database_is_not_found(console: ConsoleRig, recorder: Rig, path: str) -> None:
    assert console.browser().get(path.format(2**63)).status_code == 404


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain"])
def test_content_types_that_foreign_pages_can_send_are_rejected(console: ConsoleRig, kind: str) -> None:
    answer = console.browser().post(f"{ROOT}/cameras/{CAMERA}/forget", content=b"{}", headers={"content-type": kind})
    assert answer.status_code == 415


@pytest.mark.parametrize("body", [b"[]", b"{", b"x" * 70_000])
def test_a_body_that_is_no_json_object_is_rejected(console: ConsoleRig, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = console.browser().post(f"{ROOT}/cameras/{CAMERA}/command", content=body, headers=headers)
    assert (answer.status_code, answer.json()) == (400, {"error": "body: expected a JSON object"})


@pytest.mark.parametrize(
    "operation", [each for each in OPERATIONS if (each.body or {}).get("properties")], ids=lambda each: each.path
)
def test_an_unknown_field_is_rejected_and_changes_nothing(
    console: ConsoleRig, recorder: Rig, operation: Operation
) -> None:
    place = operation.path.format(site="lab", camera="door", alert_id="ab" * 16, job_id="0" * 16)
    answer = console.browser().post(ROOT + place, json={"modle": "typing error"})
    assert answer.status_code == 400
    assert re.fullmatch(r"body: expected [a-z_, ]+, got 'modle'\. Correct it\.", answer.json()["error"])


def test_a_review_without_a_state_and_a_comment_is_rejected(console: ConsoleRig, recorder: Rig) -> None:
    answer = console.browser().post(f"{ROOT}/alerts/{'ab' * 16}", json={"comment": " "})
    assert answer.status_code == 400
    assert answer.json()["error"] == "state, comment: expected at least one of them, got none. Add one."


@pytest.mark.parametrize("query", ["state=Offline", "order=state", "page=0", "page=x", "page=", "page=99999999"])
def test_an_invalid_selection_of_cameras_is_rejected(console: ConsoleRig, query: str) -> None:
    answer = console.browser().get(f"{ROOT}/cameras?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(f"{query.partition('=')[0]}: expected ")


def test_a_request_with_a_password_has_the_rights_of_its_user(tmp_path: Path, recorder: Rig) -> None:
    users = tmp_path / "users"
    write_user(users, "anna", Right.VIEWER, "a long password")
    console = ConsoleRig(tmp_path, users=users)
    try:
        browser = console.browser()
        assert browser.get(f"{ROOT}/cameras").status_code == 401
        assert browser.get(f"{ROOT}/cameras", auth=("anna", "wrong")).status_code == 401
        assert browser.get(f"{ROOT}/cameras", auth=("anna", "a long password")).status_code == 200
        rejected = browser.post(f"{ROOT}/cameras/{CAMERA}/forget", json={}, auth=("anna", "a long password"))
        assert (rejected.status_code, rejected.json()) == (
            403,
            {"error": "user: expected the right `operator`, got `viewer`"},
        )
    finally:
        console.close()


def test_verdicts_are_exported_as_csv_and_as_parquet(
    console: ConsoleRig, recorder: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SETTLED_MS, "sqlite", 0)
    unusual = verdict(1, flagged=True, p_value=0.125, p_value_threshold=0.25, statistic=SCALED_NORMS)
    recorder.verdicts([verdict(0, class_name="=HYPERLINK(1)"), unusual])
    recorder.verdicts([verdict(0, certified_patch=5, certified=True)], "lab/gate")
    browser = console.browser()
    query = f"since_ms={time.time_ns() // 10**6 - 60_000}"
    table = list(csv.DictReader(io.StringIO(browser.get(f"{ROOT}/export/verdicts.csv?{query}").text)))
    assert list(table[0]) == list(COLUMNS)
    assert [(row["camera"], row["seq"]) for row in table] == [(CAMERA, "0"), (CAMERA, "1"), ("lab/gate", "0")]
    assert table[0]["class_name"] == "'=HYPERLINK(1)"
    assert [(row["strip"], row["flagged"]) for row in table] == [("", "False"), ("checked", "True"), ("", "False")]
    assert [(row["certified_patch"], row["certified"]) for row in table] == [("", ""), ("", ""), ("5", "True")]
    answer = browser.get(f"{ROOT}/export/verdicts.parquet?{query}&camera={CAMERA}")
    found = pq.read_table(io.BytesIO(answer.content)).to_pylist()
    assert [(row["boot"], row["seq"], row["true_class"]) for row in found] == [(f"{BOOT:016x}", n, 3) for n in (0, 1)]
    assert [(row["p_value"], row["p_value_threshold"], row["statistic"]) for row in found] == [
        (None, None, None), (0.125, 0.25, "scaled_norms"),
    ]  # fmt: skip
    nothing = browser.get(f"{ROOT}/export/verdicts.parquet?since_ms=0&until_ms=1")
    assert pq.read_table(io.BytesIO(nothing.content)).num_rows == 0


@pytest.mark.parametrize("has_until", [True, False])
def test_consecutive_exports_contain_each_verdict_once(
    console: ConsoleRig, recorder: Rig, monkeypatch: pytest.MonkeyPatch, has_until: bool
) -> None:
    begun_ms = time.time_ns() // 10**6

    def record(seq: int, at_ms: int) -> None:
        recorder.verdicts([verdict(seq)])
        with recorder.engine.begin() as connection:
            connection.execute(update(frames).where(frames.c.seq == seq).values(recorded_ms=at_ms))

    def export(since_ms: int, at_ms: int) -> tuple[list[int], int]:
        monkeypatch.setattr(time, "time_ns", lambda: at_ms * 10**6)
        until = f"&until_ms={at_ms}" if has_until else ""
        answer = console.browser().get(f"{ROOT}/export/verdicts.csv?since_ms={since_ms}{until}")
        seqs = [int(row["seq"]) for row in csv.DictReader(io.StringIO(answer.text))]
        return seqs, int(answer.headers["X-Pointillist-Until-Ms"])

    record(0, begun_ms - 60_000)
    record(1, begun_ms - 4_000)
    first, end_ms = export(begun_ms - 120_000, begun_ms)
    record(2, begun_ms - 5_000)  # its transaction was not committed at the first export
    at_once, same_ms = export(end_ms, begun_ms)
    second, _ = export(same_ms, begun_ms + 20_000)
    assert (first, at_once, second) == ([0], [], [2, 1])
    assert end_ms == same_ms == begun_ms - 15_000
    assert export(begun_ms, begun_ms + 1_000) == ([], begun_ms), "an export of verdicts that have not settled is empty"


def test_an_export_of_some_cameras_reads_at_most_an_hour_in_one_query(recorder: Rig) -> None:
    hour_ms = 3_600_000
    recorder.verdicts([verdict(n) for n in range(3)], "north/gate")
    recorder.verdicts([verdict(n) for n in range(3)], "south/vault")
    with recorder.engine.begin() as connection:
        for seq in range(3):
            connection.execute(update(frames).where(frames.c.seq == seq).values(recorded_ms=(1 + 5 * seq) * hour_ms))
    spans: list[int] = []

    def record_span(*arguments: Any) -> None:
        values = arguments[3].values() if isinstance(arguments[3], dict) else arguments[3]
        if times := [value for value in values if isinstance(value, int)]:
            begin_ms, end_ms = times[:2]
            spans.append(end_ms - begin_ms)

    event.listen(recorder.engine, "before_cursor_execute", record_span)
    north = Sight(frozenset({"north"}))
    for sight, camera, count in ((north, None, 3), (ALL, "south/vault", 3), (Sight(frozenset({"west"})), None, 0)):
        found = [row for part in rows(recorder.engine, 0, 12 * hour_ms, sight, camera) for row in part]
        assert len(found) == count
        assert max(spans) <= hour_ms
    spans.clear()
    assert len([row for part in rows(recorder.engine, 0, 12 * hour_ms, ALL) for row in part]) == 6
    assert len(spans) == 10, "three reads, two searches before each, and one at the end"
    event.remove(recorder.engine, "before_cursor_execute", record_span)


def test_an_export_has_an_empty_part_for_each_hour_without_verdicts(recorder: Rig) -> None:
    hour_ms = 3_600_000
    recorder.verdicts([verdict(0)])
    with recorder.engine.begin() as connection:
        connection.execute(update(frames).values(recorded_ms=hour_ms))
    parts = list(rows(recorder.engine, 0, 3 * hour_ms, ALL, CAMERA))
    assert [len(part) for part in parts] == [0, 1, 0, 0]
    _, *pieces = as_csv(iter(parts))
    assert [piece.count(b"\n") for piece in pieces] == [0, 1, 0, 0]
    pieces = list(as_parquet(iter(parts)))
    assert pieces[2:4] == [b"", b""]
    assert pq.read_table(io.BytesIO(b"".join(pieces))).num_rows == 1


def test_an_export_holds_few_verdicts_at_once(recorder: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.console.data.export._PART_ROWS", 3)
    recorder.verdicts([verdict(n) for n in range(10)])
    recorder.verdicts([verdict(n) for n in range(10)], "lab/gate")
    with recorder.engine.begin() as connection:
        connection.execute(update(frames).values(recorded_ms=1000 + frames.c.seq // 2))  # four in each millisecond
    parts = [len(part) for part in rows(recorder.engine, 0, 10_000, ALL)]
    assert parts == [4, 4, 4, 4, 4, 0]
    assert [len(part) for part in rows(recorder.engine, 0, 10_000, ALL, "lab/gate")] == [4, 4, 2]


@pytest.mark.parametrize("query", ["since_ms=x", "since_ms=5&until_ms=1", "since_ms=0", "camera=.."])
def test_an_invalid_export_is_rejected(console: ConsoleRig, recorder: Rig, query: str) -> None:
    assert console.browser().get(f"{ROOT}/export/verdicts.csv?{query}").status_code == 400

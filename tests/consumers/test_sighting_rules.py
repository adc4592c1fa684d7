"""Sighting rules by the REST API and by the command line: the same checks, rights and lines of the audit log."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumers.console.access.rights import Right
from consumers.console.access.users import write_user
from consumers.console.api.routes import ROOT
from consumers.console.data.store import Operation, Store
from consumers.database.changes import change_recorded
from consumers.sightings.rule import SightingRule
from consumers.sightings.rules_table import MOST_RULES, new_rule, read_rules, save_rule
from infra.cli.sightings import list_rules, remove, set_rule
from infra.state_folder import Layout
from schemas.errors import ConfigError, StateError
from tests.consumers.console_rig import OWNER, ConsoleRig
from tests.consumers.recorder_rig import Rig

RULES = f"{ROOT}/sighting-rules"
RULE = {"cameras": "lab/*", "wanted": "vehicle"}


def rules(url: str) -> tuple[SightingRule, ...]:
    return change_recorded(url, read_rules)


def post(console: ConsoleRig, path: str, **body: object) -> tuple[int, str]:
    answer = console.browser().post(path, json=body)
    found = answer.json()
    return answer.status_code, found.get("outcome") or found.get("error")


def fields_of(line: Operation) -> tuple[str, ...]:
    return line.who, line.what, line.subject, line.detail, line.outcome, line.site


def test_the_api_saves_lists_replaces_and_removes_rules(console: ConsoleRig, recorder: Rig) -> None:
    assert console.browser().get(RULES).json() == []
    assert post(console, RULES, **RULE) == (200, "saved")
    assert post(console, RULES, **RULE | {"frames": 5, "absent_s": 30}) == (200, "saved")
    (found,) = console.browser().get(RULES).json()
    assert found.pop("at_ms") > 0
    assert found == RULE | {"frames": 5, "confidence": 0.5, "absent_s": 30.0, "cooldown_s": 900.0, "who": OWNER}
    assert post(console, f"{RULES}/remove", **RULE) == (200, "removed")
    assert console.browser().get(RULES).json() == []
    assert rules(recorder.url) == ()
    lines = [fields_of(each) for each in console.context.store.newest_operations("lab/*")]
    saved = "vehicle: frames 5, confidence 0.5, absent_s 30, cooldown_s 900"
    assert lines[:2] == [
        (OWNER, "sighting rule", "lab/*", "vehicle", "removed", "lab"),
        (OWNER, "sighting rule", "lab/*", saved, "saved", "lab"),
    ]


@pytest.mark.parametrize(
    ("path", "changed", "expected"),
    [
        (RULES, {"cameras": "*/*"}, "cameras: expected site/camera, or site/* or site/beginning*, got '*/*'"),
        (RULES, {"cameras": None}, "cameras: expected site/camera"),
        (RULES, {"wanted": ""}, "wanted: expected a class or a group, got ''"),
        (RULES, {"wanted": "unsure"}, "wanted: expected a class or a group, got 'unsure'"),
        (RULES, {"wanted": ["vehicle"]}, "wanted: expected a class or a group"),
        (RULES, {"wanted": "a\nb"}, "wanted: expected a class or a group"),
        (RULES, {"frames": 1}, "frames: expected 2 to 100 as a whole number, got '1'"),
        (RULES, {"frames": 2.5}, "frames: expected 2 to 100 as a whole number, got '2.5'"),
        (RULES, {"confidence": "high"}, "confidence: expected 0 to 1, got 'high'"),
        (RULES, {"absent_s": True}, "absent_s: expected 5 to 86400, got 'True'"),
        (RULES, {"cooldown_s": None}, "cooldown_s: expected 60 to 86400, got 'None'"),
        (RULES, {"colour": "red"}, "body: expected cameras, wanted, frames, confidence, absent_s, cooldown_s, got"),
        (f"{RULES}/remove", {"wanted": "dog"}, "rule: expected one of the list, got dog at lab/*. List the rules."),
        (f"{RULES}/remove", {"cameras": "lab"}, "cameras: expected site/camera"),
    ],
)
def test_an_invalid_rule_is_rejected_in_one_line_and_changes_nothing(
    console: ConsoleRig, recorder: Rig, path: str, changed: dict[str, object], expected: str
) -> None:
    post(console, RULES, **RULE)
    before = rules(recorder.url)
    status, error = post(console, path, **RULE | changed)
    assert (status, error[: len(expected)]) == (400, expected)
    assert "\n" not in error
    assert rules(recorder.url) == before != ()
    assert len(console.context.store.newest_operations("lab/*")) == 1


def test_a_body_that_is_no_object_is_rejected(console: ConsoleRig, recorder: Rig) -> None:
    for path in (RULES, f"{RULES}/remove"):
        answer = console.browser().post(path, json=[RULE])
        assert (answer.status_code, answer.json()) == (400, {"error": "body: expected a JSON object"})
    assert rules(recorder.url) == ()


def test_rules_beyond_the_limit_are_rejected_and_existing_ones_replaced(console: ConsoleRig, recorder: Rig) -> None:
    with recorder.engine.begin() as connection:
        for number in range(MOST_RULES):
            save_rule(connection, new_rule(RULE | {"wanted": f"class {number}"}, OWNER, 5))
    assert post(console, RULES, **RULE)[1].startswith(f"rule: expected at most {MOST_RULES} at a site, got more")
    assert post(console, RULES, cameras="lab/*", wanted="class 7", frames=9) == (200, "saved")


@pytest.mark.parametrize("site", ["labs", "la"])
def test_the_rules_of_a_site_leave_room_for_another_site_up_to_a_total(recorder: Rig, site: str) -> None:
    with recorder.engine.begin() as connection, pytest.MonkeyPatch.context() as patch:
        patch.setattr("consumers.sightings.rules_table.MOST_RULES", 2)
        for wanted in ("cat", "dog"):
            save_rule(connection, new_rule({"cameras": "lab/*", "wanted": wanted}, OWNER, 5))
            save_rule(connection, new_rule({"cameras": f"{site}/*", "wanted": wanted}, OWNER, 5))
        with pytest.raises(ConfigError, match="rule: expected at most 2 at a site, got more"):
            save_rule(connection, new_rule({"cameras": f"{site}/door", "wanted": "cat"}, OWNER, 5))
        patch.setattr("consumers.database.user_rows.MOST_SITES", 2)
        with pytest.raises(ConfigError, match="rule: expected at most 4 at all sites, got more"):
            save_rule(connection, new_rule({"cameras": "yard/*", "wanted": "cat"}, OWNER, 5))


def test_without_the_recorders_database_rules_are_answered_with_status_503(tmp_path: Path) -> None:
    console = ConsoleRig(tmp_path)
    answer = console.browser().get(RULES)
    assert answer.status_code == 503
    assert "is missing" in answer.json()["error"]
    assert post(console, RULES, **RULE)[0] == 503
    assert console.context.store.newest_operations("lab/*") == []
    console.close()


def test_viewers_list_rules_and_save_none(tmp_path: Path, recorder: Rig) -> None:
    write_user(tmp_path / "users", "eve", Right.VIEWER, "a long password")
    console = ConsoleRig(tmp_path, users=tmp_path / "users")
    save = new_rule(RULE, "root", 5)
    change_recorded(recorder.url, lambda each: save_rule(each, save))
    visitor, login = console.visitor(), ("eve", "a long password")
    assert [each["wanted"] for each in visitor.get(RULES, auth=login).json()] == ["vehicle"]
    for path in (RULES, f"{RULES}/remove"):
        assert visitor.post(path, auth=login, json=RULE).status_code == 403
    assert rules(recorder.url) == (save,)
    console.close()


def test_the_command_line_saves_lists_and_removes_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = Layout(tmp_path)
    recorder = Rig(tmp_path, layout.database_url)
    set_rule("gate-*", "vehicle", frames=2, state=tmp_path)
    set_rule("north/door", "person", cooldown_s=60, state=tmp_path)
    capsys.readouterr()
    list_rules(tmp_path)
    vehicle = "vehicle: frames 2, confidence 0.5, absent_s 60, cooldown_s 900"
    person = "person: frames 3, confidence 0.5, absent_s 60, cooldown_s 60"
    printed = capsys.readouterr().out.splitlines()
    assert printed == [f"local/gate-* {vehicle}, by {OWNER}", f"north/door {person}, by {OWNER}"]
    remove("gate-*", "vehicle", tmp_path)
    assert [each.wanted for each in rules(recorder.url)] == ["person"]
    store = Store(layout.console_url)
    lines = [fields_of(each) for each in store.newest_operations()]
    store.close()
    assert lines == [
        (OWNER, "sighting rule", "local/gate-*", "vehicle", "removed", "local"),
        (OWNER, "sighting rule", "north/door", person, "saved", "north"),
        (OWNER, "sighting rule", "local/gate-*", vehicle, "saved", "local"),
    ]
    with pytest.raises(ConfigError, match="frames: expected 2 to 100 as a whole number, got '1'"):
        set_rule("gate-*", "vehicle", frames=1, state=tmp_path)
    with pytest.raises(ConfigError, match=r"rule: expected one of the list, got vehicle at local/gate-\*"):
        remove("gate-*", "vehicle", tmp_path)
    with pytest.raises(StateError, match="--state: expected a state folder"):
        list_rules(tmp_path / "typo")
    recorder.close()

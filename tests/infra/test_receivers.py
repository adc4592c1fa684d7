from __future__ import annotations

import itertools
import os
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.alertmanager.receivers import SHIPPED, as_yaml, configuration
from infra.local.service import instance_names
from infra.monitor.alert_notifier import ALERT_NAME, SIGHTING_NAME, document_of
from schemas.errors import ConfigError
from schemas.pointillist_pb2 import Alert, Statistic
from tests.infra.alert_rules import ALERTS

HOOK = {"name": "duty", "webhook_configs": [{"url": "http://127.0.0.1:1/"}]}
MAIL = {"name": "mail", "email_configs": [{"to": "ada@example.org"}]}


def write_receivers(folder: Path, document: object) -> Path:
    file = folder / "receivers.yml"
    file.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return file


def matched(matchers: list[str]) -> set[str]:
    """Return the alerts that matchers name."""
    names = [found[2] for each in matchers if (found := re.fullmatch(r'alertname(=~?)"(.*)"', each))]
    return set(itertools.chain.from_iterable(name.split("|") for name in names))


def test_every_rule_keeps_the_namespace_of_its_system() -> None:
    aggregation = r"\b(?:sum|min|max|group|avg|count)\b(?! by \(namespace\b)"
    assert not [name for name, rule in ALERTS.items() if re.search(aggregation, rule["expr"])]


def test_every_alert_in_routes_and_inhibitions_is_raised_by_a_rule_or_by_the_monitor() -> None:
    shipped = yaml.safe_load(SHIPPED.read_text())
    named = [matched(route["matchers"]) for route in shipped["route"]["routes"]]
    for rule in shipped["inhibit_rules"]:
        named += [matched(rule["source_matchers"]), matched(rule["target_matchers"])]
        assert named[-1]
        assert named[-2]
        # The label must exist on both sides, because Alertmanager treats two missing labels as equal.
        for label in rule.get("equal", []):
            for name in (named[-1] | named[-2]) - {ALERT_NAME}:
                written = ALERTS[name]["expr"]  # without an aggregation, an alert has all labels of its series
                assert " by (" not in written or re.search(rf"by \([^)]*\b{label}\b", written), (name, label)
            if ALERT_NAME in named[-1] | named[-2]:
                assert label in document_of(Alert(camera_id="site/door"), "")["labels"]
    assert set().union(*named) <= ALERTS.keys() | {ALERT_NAME, SIGHTING_NAME}


@pytest.mark.parametrize(
    ("kind", "statistic", "why"),
    [
        ("strip", Statistic.NO_STATISTIC, "whatever is in the picture"),
        ("combined", Statistic.TYPICALITY, "for other reasons than in clean pictures"),
    ],
)
def test_the_summary_of_an_alert_gives_its_reason(kind: str, statistic: Statistic, why: str) -> None:
    alert = Alert(camera_id="site/door", kind=kind, statistic=statistic, checked=9)
    summary = document_of(alert, "")["annotations"]["summary"]
    assert summary == f"site/door: The network answers the same {why}: a trigger in the scene? 9 frames."


def test_alerts_of_lost_or_damaged_frames_and_attacks_are_never_inhibited() -> None:
    names = {*ALERTS, ALERT_NAME} - {"PointillistStripShed"}
    always = {name for name in names if re.search("Lost|Shed$|Damaged|Backdoor|AttackSucceeds", name)}
    assert len(always) == 7
    for rule in yaml.safe_load(SHIPPED.read_text())["inhibit_rules"]:
        assert not matched(rule["target_matchers"]) & always


@pytest.mark.parametrize("role", [*instance_names("fleet", 1), *instance_names("fleet", 2)])
def test_any_fleet_process_that_is_down_inhibits_the_alerts_about_its_cameras(role: str) -> None:
    inhibited: set[str] = set()
    for rule in yaml.safe_load(SHIPPED.read_text())["inhibit_rules"]:
        if matched(rule["source_matchers"]) == {"PointillistRoleDown"}:
            [(equal, pattern)] = re.findall(r'\brole(=~?)"(.*?)"', " ".join(rule["source_matchers"]))
            if re.fullmatch(pattern if equal == "=~" else re.escape(pattern), role):
                inhibited |= matched(rule["target_matchers"])
    assert "PointillistCamerasOffline" in inhibited


def test_the_first_receiver_of_a_file_gets_all_alerts_with_the_shipped_routes(tmp_path: Path) -> None:
    found = configuration(write_receivers(tmp_path, {"receivers": [HOOK, MAIL], "global": {
        "smtp_smarthost": "mail.example.org:25", "smtp_from": "fleet@example.org",
    }}))  # fmt: skip
    assert found["route"]["receiver"] == "duty"
    assert found["receivers"] == [HOOK, MAIL]
    shipped = configuration(None)
    assert found["route"]["routes"] == shipped["route"]["routes"]
    assert found["inhibit_rules"] == shipped["inhibit_rules"]


def test_routes_of_a_file_choose_the_receiver_within_each_shipped_route(tmp_path: Path) -> None:
    routes = [{"receiver": "mail", "matchers": ['severity="warning"']}]
    document = {"receivers": [HOOK, HOOK | {"name": "mail"}], "routes": routes}
    found = configuration(write_receivers(tmp_path, document))
    defence, sightings, critical, others = found["route"]["routes"]
    assert [each["routes"] for each in (defence, sightings, critical, others)] == [routes] * 4
    assert defence["group_wait"] == "1s"
    assert "&" not in as_yaml(found)


def test_files_that_a_receiver_names_are_relative_to_its_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    hook = {"url": "http://127.0.0.1:1/", "http_config": {"authorization": {"credentials_file": "token"}}}
    found = configuration(write_receivers(tmp_path, {"receivers": [{"name": "duty", "webhook_configs": [hook]}]}))
    (receiver,) = found["receivers"]
    authorization = receiver["webhook_configs"][0]["http_config"]["authorization"]
    assert authorization == {"credentials_file": str(tmp_path / "token")}


def test_numbers_times_and_codes_of_a_file_are_passed_on_as_written(tmp_path: Path) -> None:
    written = (
        "user_key: 0123456", "token: '0123'", "token: 1_000_000", "retry: 1m", "priority: yes",
        "start_time: 17:00", "end_time: 24:00", "days_of_month: [1:5]", "send_resolved: true", "title: 'no'",
    )  # fmt: skip
    file = """
        receivers:
          - name: duty
            webhook_configs: [{url: "http://127.0.0.1:1/", send_resolved: true, max_alerts: 5}]
            pushover_configs:
              - {user_key: 0123456, token: '0123', retry: 1m, priority: yes, title: 'no'}
              - {user_key: 12:34:56, token: 1_000_000, retry: 1m}
        time_intervals:
          - name: night
            time_intervals: [{times: [{start_time: 17:00, end_time: 24:00}], days_of_month: [1:5]}]
    """
    found = as_yaml(configuration(write_receivers(tmp_path, textwrap.dedent(file)))).replace("\n    - 1:5", " [1:5]")
    assert [each for each in (*written, "user_key: 12:34:56", "max_alerts: 5") if f"{each}\n" not in found] == []


REPEATED = """\
receivers:
  - name: duty
    webhook_configs: [{url: "http://127.0.0.1:1/"}]
    webhook_configs: [{url: "http://127.0.0.1:2/"}]
"""


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("a: [", "expected YAML"),
        (REPEATED, "expected each key of a mapping once, got one again in line 4"),
        ("- duty", "expected `receivers`"),
        ({"routes": []}, "expected `receivers`"),
        ({"receivers": []}, "at least one receiver"),
        ({"receivers": [{"webhook_configs": []}]}, "each with a name"),
        ({"receivers": "duty"}, "a list of mappings under receivers"),
        ({"receivers": [HOOK], "routes": ["duty"]}, "a list of mappings under routes"),
        ({"receivers": [HOOK], "route": {}}, "got route"),
        ({"receivers": [HOOK], "routes": [{"receiver": "nobody there"}]}, "accepts, got undefined receiver"),
        ({"receivers": [HOOK | {"pigeon_configs": []}]}, "accepts, got field pigeon_configs not found in type"),
        ({"receivers": [HOOK], "time_intervals": "hunter2"}, "accepts, got cannot unmarshal !!str … into"),
    ],
)
def test_an_invalid_file_is_one_error_line(tmp_path: Path, document: object, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configuration(write_receivers(tmp_path, document))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        configuration(tmp_path / "none.yml")


def test_no_password_of_an_invalid_file_is_printed(tmp_path: Path) -> None:
    broken: Any = "receivers:\n  - name: duty\n    token: hunter2: [\n"
    with pytest.raises(ConfigError) as caught:
        configuration(write_receivers(tmp_path, broken))
    assert "hunter2" not in str(caught.value)


def test_a_check_that_hangs_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "amtool"
    program.write_text("#!/bin/sh\nexec sleep 30\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("infra.alertmanager.receivers._CHECK_S", 0.2)
    assert HOOK in configuration(write_receivers(tmp_path, {"receivers": [HOOK]}))["receivers"]

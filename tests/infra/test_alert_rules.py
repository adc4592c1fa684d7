from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from infra.local.prometheus import RULES
from infra.prometheus.operator_rules import MANIFEST, SOURCE, manifest
from tests.infra.alert_rules import ALERTS, documents
from tests.infra.promql_names import unknown_names

TESTS = RULES.parent / "tests"
RULE_FILES = sorted(RULES.glob("*.yml"))
TEST_FILES = sorted(TESTS.glob("*.yml"))
FILES: dict[str, dict[str, Any]] = {file.stem: next(documents(file.read_text())) for file in TEST_FILES}
CASES = [case for file in FILES.values() for test in file["tests"] for case in test["alert_rule_test"]]


def test_the_manifest_in_the_repository_contains_every_rule_file() -> None:
    assert [SOURCE] == RULE_FILES
    assert MANIFEST.read_text() == manifest(SOURCE.read_text())


def promtool(*arguments: object) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    assert program, "promtool is missing: install the Debian package prometheus"
    return subprocess.run(
        [program, *map(str, arguments)], check=False, capture_output=True, text=True, timeout=60
    )  # fmt: skip


def test_prometheus_accepts_the_rules() -> None:
    done = promtool("check", "rules", *RULE_FILES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


@pytest.mark.parametrize("tests", FILES.values(), ids=FILES)
def test_promtool_passes_the_tests_of_the_alerts(tests: dict[str, Any], tmp_path: Path) -> None:
    files = []
    for number, test in enumerate(tests["tests"]):
        # promtool evaluates all rules of a file at every step of a test. A test needs only the rules of its alerts.
        named = {case["alertname"] for case in test["alert_rule_test"]}
        rules, file = tmp_path / f"rules-{number}.yml", tmp_path / f"test-{number}.yml"
        rules.write_text(json.dumps({"groups": [{"name": "named", "rules": [ALERTS[name] for name in sorted(named)]}]}))
        file.write_text(json.dumps({**tests, "tests": [test], "rule_files": [rules.name]}))
        files.append(file)
    done = promtool("test", "rules", *files)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_that_fires_and_two_that_do_not() -> None:
    for name in ALERTS:
        cases = [case["exp_alerts"] for case in CASES if case["alertname"] == name]
        assert any(cases), name
        assert sum(not expected for expected in cases) >= 2, f"{name}: one before it fires, one below its threshold"


def test_every_case_is_about_an_existing_alert() -> None:
    assert {case["alertname"] for case in CASES} == ALERTS.keys()


def test_every_alert_uses_metrics_and_labels_of_the_contract() -> None:
    assert {name: found for name, alert in ALERTS.items() if (found := list(unknown_names(alert["expr"])))} == {}

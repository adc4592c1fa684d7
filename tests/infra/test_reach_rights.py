"""The rights of roles in Kafka: missing ones in Kafka's answer, and the documented table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from infra.pki.kafka_rights import kafka_rights
from infra.preflight.kafka_rights import refusals
from schemas.topics import KafkaTopic

TABLE = (Path(__file__).parents[2] / "docs/operations/access.md").read_text().partition("\n## Who gets in\n")[2]


def test_missing_rights_are_read_from_kafka_s_answer_and_missing_topics_are_ignored() -> None:
    used = {"a": {"READ", "WRITE"}, "b": {"READ"}, "c": {"WRITE"}, "d": {"READ"}, "e": {"READ"}}
    topics = [
        {"topic": "a", "error_code": 0, "authorized_operations": 1 << 3 | 1 << 8},
        {"topic": "b", "error_code": 29, "authorized_operations": -(2**31)},
        {"topic": "c", "error_code": 0, "authorized_operations": -(2**31)},
        {"topic": "d", "error_code": 3, "authorized_operations": -(2**31)},
        {"topic": "e", "error_code": 0, "authorized_operations": 1 << 3},
    ]
    assert refusals(topics, used) == ["write a", "read b"]


@pytest.mark.parametrize("role", ["bridge", "processor", "recorder", "console", "monitor"])
def test_the_documentation_lists_the_topics_that_a_role_reads_and_writes(role: str) -> None:
    (row,) = re.findall(rf"(?m)^\| `{role}`.*\| ([^|]*) \|$", TABLE)
    for verb, operation in (("reads", "READ"), ("writes", "WRITE")):
        named = re.sub(r" \(.*?\)", "", next(iter(re.findall(rf"\b{verb} ([^;]*)", row)), ""))
        granted = {
            KafkaTopic(right.name).name.lower().replace("_", " ")
            for right in kafka_rights()
            if (right.role, right.resource.name, right.operation.name) == (role, "TOPIC", operation)
        }
        assert set(named.split(", ")) == granted

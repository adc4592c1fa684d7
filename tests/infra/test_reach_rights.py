"""What a role may not do in Kafka is read from Kafka's own answer."""

from __future__ import annotations

from infra.preflight.kafka_rights import refusals


def test_of_kafka_s_answer_what_is_not_allowed_is_told_and_what_is_not_there_is_left_to_the_role() -> None:
    used = {"a": {"READ", "WRITE"}, "b": {"READ"}, "c": {"WRITE"}, "d": {"READ"}, "e": {"READ"}}
    topics = [
        {"topic": "a", "error_code": 0, "authorized_operations": 1 << 3 | 1 << 8},
        {"topic": "b", "error_code": 29, "authorized_operations": -(2**31)},
        {"topic": "c", "error_code": 0, "authorized_operations": -(2**31)},
        {"topic": "d", "error_code": 3, "authorized_operations": -(2**31)},
        {"topic": "e", "error_code": 0, "authorized_operations": 1 << 3},
    ]
    assert refusals(topics, used) == ["write a", "read b"]

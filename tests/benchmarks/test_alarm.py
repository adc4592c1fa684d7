"""The delays of alerts, and the alerts that count as false."""

from __future__ import annotations

from benchmarks.reliability.alarm import waits


def test_an_alert_before_the_sticker_appears_is_false_and_no_detection() -> None:
    found = waits(
        {"a", "b", "c", "d"},
        raised={"a": 1.0, "b": None},
        began_ms={"a": 10_000, "b": 10_000, "c": 10_000},
        alerted_s={"a": 14.0, "b": 7.0, "d": 3.0, "x": 15.0},
    )
    assert found["others"] == ["b", "d", "x"]
    assert {camera: each["to_webhook_s"] for camera, each in found["cameras"].items()} == {
        "a": 4.0, "b": None, "c": None, "d": None,
    }  # fmt: skip
    assert found["cameras"]["a"]["to_evidence_s"] == 1.0

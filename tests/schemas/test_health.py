"""The health report of a role."""

from __future__ import annotations

from schemas.runtime.health import Health


def test_a_role_without_any_condition_is_unhealthy() -> None:
    assert Health().report() == (False, {})


def test_a_role_is_healthy_while_all_its_conditions_hold() -> None:
    health = Health()
    health.set("kafka", True)
    assert health.report() == (True, {"kafka": {"ok": True, "detail": ""}})
    health.set("assigned", False, "no partition")
    assert health.report() == (
        False,
        {"kafka": {"ok": True, "detail": ""}, "assigned": {"ok": False, "detail": "no partition"}},
    )
    health.set("assigned", True, "3 partitions")
    assert health.report()[0]

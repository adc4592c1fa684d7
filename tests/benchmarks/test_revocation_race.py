"""A small run of the measurement of concurrent revocations, without brokers."""

from __future__ import annotations

from benchmarks.security.secure.revocation_race import race


def test_no_revocation_is_lost_when_several_processes_revoke_at_once() -> None:
    found = race(cameras=32, processes=4)
    assert found["revoked"] == 32
    assert not any(found["missing"].values()), found

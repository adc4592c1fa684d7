"""The ends of a role's certificates as metrics, and a role's warning about revocations."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from infra.cli.access import resolved
from infra.cli.roles import run_following
from infra.local.files import write_json
from infra.pki.authority import LOCAL_HOSTS, Authority
from infra.pki.roles import Roles, role_folder
from infra.process import role as role_process
from infra.process.certificates import Certificates, export_ends
from infra.state_folder import Layout
from producers.bridge import BridgeSettings
from schemas.keys.keys import KeyRing
from schemas.keys.roots import Role, Roots
from schemas.metrics import CERTIFICATE_EXPIRATION
from schemas.runtime.health import Health
from schemas.transport.access import CERTIFICATE_FILE
from tests.infra.secure import SECRET, make_fleet

KEYS = KeyRing(Roots.of_fleet(SECRET).of(Role.BRIDGE))


def end_of(registry: CollectorRegistry, purpose: str) -> float:
    found = registry.get_sample_value(CERTIFICATE_EXPIRATION.name, {"purpose": purpose})
    assert found is not None
    return found


def end_in(file: Path) -> float:
    return x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc.timestamp()


@pytest.fixture
def fleet(tmp_path: Path) -> Layout:
    """An authority for each test: the tests replace certificates."""
    return make_fleet(tmp_path)


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> list[CollectorRegistry]:
    """The registries of roles that ended at once."""
    found: list[CollectorRegistry] = []

    def run_role(_role: str, _metrics: str | None, entry: Any, *, certificates: Certificates, **_: Any) -> None:
        registry = CollectorRegistry()
        export_ends(registry, certificates)
        found.append(registry)
        asyncio.run(entry(registry, Health(), asyncio.Event()))

    monkeypatch.setattr(role_process, "run_role", run_role)
    return found


async def nothing(*_: object) -> None:
    pass


def test_a_role_exports_the_end_of_each_certificate_and_follows_its_renewal(
    fleet: Layout, exported: list[CollectorRegistry]
) -> None:
    roles = Roles(Authority(fleet.pki))
    file = roles.folder("bridge") / CERTIFICATE_FILE
    given: Mapping[str, Any] = {"mqtt": "127.0.0.1:1", "kafka": "127.0.0.1:2", "kafka_tls": file.parent}
    settings = resolved(BridgeSettings(state=fleet.folder, **given), "bridge")
    run_following("bridge", settings, KEYS, nothing)
    (registry,) = exported
    first = end_in(file)
    assert {purpose: end_of(registry, purpose) for purpose in ("mqtt", "kafka")} == {"mqtt": first, "kafka": first}
    roles.issue("bridge", LOCAL_HOSTS, days=50)
    assert end_of(registry, "kafka") == end_in(file) > first
    file.write_text("half of a")
    assert end_of(registry, "kafka") > first
    file.unlink()
    assert end_of(registry, "kafka") > first


def test_a_role_without_a_certificate_exports_no_end(exported: list[CollectorRegistry]) -> None:
    run_following("bridge", BridgeSettings(mqtt="127.0.0.1:1", kafka="127.0.0.1:2"), KEYS, nothing)
    assert [family.samples for family in exported[0].collect()] == [[]]


@pytest.mark.parametrize(
    ("tls", "named", "warnings"),
    [(True, False, ["generations_not_given"]), (True, True, []), (False, False, [])],
    ids=["without the file", "with the file", "without TLS"],
)
def test_a_role_that_cannot_follow_revocations_logs_a_warning(
    fleet: Layout,
    exported: list[CollectorRegistry],
    monkeypatch: pytest.MonkeyPatch,
    tls: bool,
    named: bool,
    warnings: list[str],
) -> None:
    write_json(fleet.generations, {})
    if named:
        monkeypatch.setenv("POINTILLIST_GENERATIONS_FILE", str(fleet.generations))
    given: dict[str, Any] = {"kafka_tls": role_folder(fleet.pki, "bridge")} if tls else {}
    settings = BridgeSettings(mqtt="127.0.0.1:1", kafka="127.0.0.1:2", **given)
    with capture_logs() as lines:
        run_following("bridge", resolved(settings, "bridge"), KEYS, nothing)
    assert [line["event"] for line in lines if line["log_level"] == "warning"] == warnings
    assert len(exported) == 1


def test_of_several_certificates_the_earliest_end_counts(fleet: Layout) -> None:
    roles = Roles(Authority(fleet.pki))
    roles.issue("bridge-2", LOCAL_HOSTS, days=3)
    files = [roles.folder(name) / CERTIFICATE_FILE for name in ("bridge", "bridge-2")]
    registry = CollectorRegistry()
    export_ends(registry, {"mqtt": files})
    assert end_of(registry, "mqtt") == end_in(files[1]) < end_in(files[0])
    del files[1]
    assert end_of(registry, "mqtt") == end_in(files[0])
    files.clear()
    assert math.isnan(end_of(registry, "mqtt"))

"""Revocation of a role's certificates: both brokers reject the old ones, and a running system uses new ones."""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra.admission.camera_revocation import (
    BRIEF_DAYS,
    CANARY,
    await_refusal,
    check_lists,
    close_connection,
    issue_canary,
    reload_broker,
    running_broker,
    write_client_tls,
)
from infra.local.role_table import read_roles, running
from infra.pki.authority import CRL_FILE, Authority
from infra.pki.kafka_rights import SUPER_USERS, grant, is_super_user, withdraw
from infra.pki.role_generations import raise_role_generation, role_generations
from infra.pki.roles import CLIENTS, Roles, kind_of, rights_file, role_tls
from infra.pki.serials import issued_roles
from infra.state_folder import Layout
from infra.state_folder.identity_lock import changing_identities
from schemas.errors import BrokerError, ConfigError
from schemas.settings import format_address
from schemas.transport.access import KafkaAccess

REVOCABLE: Final = (*CLIENTS, "kafka")
RESTART_S: Final = 60.0
"""Seconds for roles to end, and for Kafka to restart."""
_POLL_S: Final = 0.05


@dataclass(frozen=True)
class RoleRevocation:
    """The result of a revocation."""

    names: list[str]
    """The instances of the role that were given new certificates."""
    generation: int
    """The generation of the new certificates, the only one that Kafka accepts."""
    mqtt: str | None
    """The MQTT broker that rejects the old ones; None when none runs on this state folder."""
    kafka: str | None
    """The Kafka that rejects the old ones; None when none runs on this state folder."""


def revoke_role(layout: Layout, role: str, within_s: float = 5.0) -> RoleRevocation:
    """Revoke the certificates of all instances of `role`, and issue new ones of the next generation.

    The new ones are valid as long as the former ones. Mosquitto reloads its list of revoked certificates, and open
    connections are closed. Kafka receives the rights of the new generation. The role's processes end, and their
    supervisor restarts them with the new certificate. Then the rights of the old generation are deleted. For a super
    user Kafka itself is restarted instead. Raises ConfigError for another role, and StateError when a list lacks the
    role. Raises BrokerError when a broker does not follow: `within_s` seconds for mosquitto, a minute for Kafka.
    """
    if role not in REVOCABLE:
        raise ConfigError(
            f"--role: expected one of {', '.join(REVOCABLE)}, got {role!r}. A server's key is replaced as the runbook "
            "'A role's machine is in other hands' describes."
        )
    with changing_identities(layout.folder):
        authority = Authority(layout.pki)
        roles = Roles(authority)
        mqtt = running_broker(layout)
        canary = issue_canary(authority) if mqtt is not None else None
        names = [name for name in roles.names() if kind_of(name) == role]
        # An instance whose folder was removed may be created again: a copy of its certificate would have its rights.
        ever = sorted({*names, *(name for name in issued_roles(layout.pki) if kind_of(name) == role)})
        old = {number: name for name in ever for number in roles.numbers(name)}
        authority.revoke(old if canary is None else old | {canary.serial: CANARY})
        generation = raise_role_generation(layout.pki, role)
        roles.reissue(role)
        roles.write_rights()
        _check_written(layout, roles, role, set(old), generation)
    if mqtt is not None and canary is not None:
        reload_broker(layout)
        await_refusal(mqtt, authority, canary, within_s)
        for name in ever:
            close_connection(mqtt, authority, name, within_s)
    kafka = _running_kafka(layout)
    if kafka:
        _refuse_in_kafka(layout, authority, role, kafka)
    place = format_address(mqtt) if mqtt is not None else None
    return RoleRevocation(names, generation, place, ",".join(kafka.values()) or None)


def _check_written(layout: Layout, roles: Roles, role: str, old: set[int], generation: int) -> None:
    """Read every list again; StateError when one of them lacks the role."""
    lists = {
        layout.pki / "revoked.json": old <= roles.authority.revoked().keys(),
        layout.pki / CRL_FILE: old <= roles.authority.on_list(),
        layout.pki / "roles": role_generations(layout.pki).get(role) == generation
        and not any(roles.current(name) in old for name in roles.names() if kind_of(name) == role),
    }
    copy = rights_file(layout.pki).with_name(CRL_FILE)
    if copy.parent.is_dir():
        lists[copy] = copy.read_bytes() == (layout.pki / CRL_FILE).read_bytes()
    check_lists(lists, role, f"pointillist revoke --role {role} {layout.state_option}")


def _running_kafka(layout: Layout) -> dict[str, str]:
    """Return the addresses of the Kafka nodes of this state folder; empty without TLS or a running node."""
    if not layout.secure or not (layout.folder / "roles.json").is_file():
        return {}
    return {
        name: str(entry["listen"])
        for name, entry in sorted(read_roles(layout.folder).items())
        if kind_of(name) == "kafka" and running(layout.folder, name) is not None
    }


def _refuse_in_kafka(layout: Layout, authority: Authority, role: str, nodes: dict[str, str]) -> None:
    generations = role_generations(layout.pki)
    bootstrap = ",".join(nodes.values())
    admin = KafkaAccess(bootstrap, role_tls(layout.pki, "admin"))
    if role in SUPER_USERS:
        # Kafka reads its super users when it starts.
        _end_processes(layout, list(nodes))
        _await_restart(layout, list(nodes), role)
        asyncio.run(grant(admin, RESTART_S, generations=generations))
        with tempfile.TemporaryDirectory() as folder:
            former = authority.issue(role, days=BRIEF_DAYS, generation=generations[role] - 1)
            tls = write_client_tls(Path(folder), authority, former)
            if asyncio.run(is_super_user(KafkaAccess(bootstrap, tls))):
                raise BrokerError(
                    f"Kafka at {bootstrap}: expected it to reject the former certificate of {role}, got an accepted "
                    "connection. Restart Kafka: its super.users names the accepted generation."
                )
        return
    asyncio.run(grant(admin, generations=generations))
    # This order matters: a role without rights would reject frames that Kafka has not taken.
    _end_processes(layout, [name for name in read_roles(layout.folder) if kind_of(name) == role])
    asyncio.run(withdraw(admin, generations))


def _end_processes(layout: Layout, names: list[str]) -> None:
    """End processes by SIGTERM, and by SIGKILL after a deadline; their supervisor restarts them."""
    found = [process for name in names if (process := running(layout.folder, name)) is not None]
    for process in found:
        process.send(signal.SIGTERM)
    end = time.monotonic() + RESTART_S / 2
    for process in found:
        if not process.wait_gone(max(0.0, end - time.monotonic())):
            process.send(signal.SIGKILL)


def _await_restart(layout: Layout, names: list[str], revoked: str) -> None:
    """Wait until these processes run again; BrokerError when one does not. `revoked` is the revoked role."""
    end = time.monotonic() + RESTART_S
    while missing := [name for name in names if running(layout.folder, name) is None]:
        if time.monotonic() >= end:
            raise BrokerError(
                f"{missing[0]}: expected a restart within {RESTART_S:g} s, got none. Start it, and run "
                f"`pointillist revoke --role {revoked} {layout.state_option}` again."
            )
        time.sleep(_POLL_S)

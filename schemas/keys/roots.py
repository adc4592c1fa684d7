"""The root keys: the fleet secret gives one root for each purpose, and a role gets only the roots that it needs.

A root is HKDF-SHA256 (RFC 5869) of the fleet secret, and one root reveals nothing about another. A role cannot derive a
root that it was not given: a stolen bridge can open no picture and sign no verdict.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping
from enum import StrEnum
from hashlib import sha256
from typing import Final

from schemas.errors import SecretError

ROOT_BYTES: Final = 32
LEAST_SECRET_BYTES: Final = 16


class Root(StrEnum):
    """The purpose of a root key."""

    AUTHENTICATION = "authentication"
    """Tags between cameras and servers: frames, ledgers, confirmations, `meta`, `status`, commands and requests."""
    PICTURE = "picture"
    """Cameras' pictures: the stream cipher, masks, codebooks, the choice of probes, seeds of random stages."""
    PREVIEWS = "previews"
    """Pictures for people: previews, evidence and thumbnails, in Kafka and in the server's stores. Derived from
    `PICTURE`."""
    VERDICTS = "verdicts"
    """Tags of processors' statements: verdicts, and dead letters of verified frames."""
    ALERTS = "alerts"
    """Tags of alerts."""


class Role(StrEnum):
    """A process type or service that holds root keys."""

    BRIDGE = "bridge"
    PROCESSOR = "processor"
    RECORDER = "recorder"
    AUDITOR = "auditor"
    OPERATOR = "operator"
    CONSOLE = "console"

    @property
    def roots(self) -> frozenset[Root]:
        """The roots that the role needs, and no others."""
        return _ROOTS_OF[self]


_ROOTS_OF: Final[Mapping[Role, frozenset[Root]]] = {
    Role.BRIDGE: frozenset({Root.AUTHENTICATION}),
    Role.PROCESSOR: frozenset({Root.AUTHENTICATION, Root.PICTURE, Root.PREVIEWS, Root.VERDICTS}),
    Role.RECORDER: frozenset({Root.AUTHENTICATION, Root.PREVIEWS, Root.VERDICTS, Root.ALERTS}),
    Role.AUDITOR: frozenset({Root.AUTHENTICATION, Root.VERDICTS}),
    Role.OPERATOR: frozenset({Root.AUTHENTICATION}),
    Role.CONSOLE: frozenset({Root.AUTHENTICATION, Root.PREVIEWS, Root.VERDICTS}),
}


def expanded(key: bytes, info: bytes) -> bytes:
    """Return HKDF-Expand (RFC 5869, section 2.3) of a key that is random already: one block, 32 bytes."""
    return hmac.digest(key, info + b"\1", sha256)


class Roots:
    """A subset of a fleet's root keys. They never appear in a log, a metric or an error."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Mapping[Root, bytes]) -> None:
        for root, key in keys.items():
            if len(key) != ROOT_BYTES:
                raise SecretError(
                    f"root key {root}: expected {ROOT_BYTES} bytes, got {len(key)}. Print the secret with "
                    "`pointillist key --role`."
                )
        self._keys = dict(keys)

    def __repr__(self) -> str:
        return f"Roots({', '.join(sorted(self._keys))})"

    def __contains__(self, root: Root) -> bool:
        return root in self._keys

    def __getitem__(self, root: Root) -> bytes:
        """Return the root key; `SecretError` if the role does not have it."""
        try:
            return self._keys[root]
        except KeyError:
            raise SecretError(
                f"secret: expected one with the root key {root}, got one with {self!r}. Print it with "
                "`pointillist key --role`."
            ) from None

    @classmethod
    def of_fleet(cls, fleet_secret: bytes) -> Roots:
        """Derive all roots of a fleet."""
        if len(fleet_secret) < LEAST_SECRET_BYTES:
            raise SecretError(
                f"fleet secret: expected at least {LEAST_SECRET_BYTES} bytes, got {len(fleet_secret)}. Choose a "
                "longer one."
            )
        extracted = hmac.digest(bytes(ROOT_BYTES), fleet_secret, sha256)
        keys = {root: expanded(extracted, b"pointillist v1 root\0" + root.encode()) for root in Root}
        keys[Root.PREVIEWS] = expanded(keys[Root.PICTURE], b"pointillist v1 previews")
        return cls(keys)

    def of(self, role: Role) -> Roots:
        """Return the roots that a role needs, without the others; `SecretError` if one is missing."""
        return Roots({root: self[root] for root in role.roots})

    def of_job(self, job_id: str) -> Roots:
        """Return the root keys of one job's own copy of pictures, as those of the role console.

        They follow from the key to pictures for people, and open nothing but this copy. Raises SecretError without
        that key.
        """
        secret = expanded(self[Root.PREVIEWS], b"pointillist v1 job\0" + job_id.encode())
        return Roots.of_fleet(secret).of(Role.CONSOLE)

    def export(self) -> str:
        """Return the line that `pointillist key --role` writes: `root:64 hexadecimal digits` for each, separated by
        spaces.
        """
        return " ".join(f"{root}:{self._keys[root].hex()}" for root in Root if root in self._keys)

    @classmethod
    def from_export(cls, text: str, role: Role) -> Roots:
        """Read the text of `export` for a role; `SecretError` if it has fewer or more roots than the role needs."""
        keys: dict[Root, bytes] = {}
        try:
            for part in text.split():
                name, _, digits = part.partition(":")
                keys[Root(name)] = bytes.fromhex(digits)
            found = cls(keys)
        except (ValueError, SecretError):
            raise SecretError(
                f"the secret of the role {role}: expected NAME:{2 * ROOT_BYTES} hexadecimal digits for each root key, "
                f"got another form. Print it with `pointillist key --role {role}`."
            ) from None
        if keys.keys() != role.roots:
            raise SecretError(
                f"the secret of the role {role}: expected the root keys {_named(role.roots)}, got {_named(keys)}. "
                f"Print it with `pointillist key --role {role}`."
            )
        return found


def _named(roots: Collection[Root]) -> str:
    return ", ".join(sorted(roots)) or "none"

"""Root keys: each role has its own, and an invalid secret is rejected without showing it."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from schemas.errors import SecretError
from schemas.keys.roots import Role, Root, Roots

SECRET = b"a fleet secret of tests"
FLEET = Roots.of_fleet(SECRET)


def hkdf(key: bytes, info: bytes) -> bytes:
    return hmac.new(key, info + b"\1", hashlib.sha256).digest()


def test_roots_are_hkdf_of_the_fleet_secret_and_previews_derive_from_pictures() -> None:
    extracted = hmac.new(bytes(32), SECRET, hashlib.sha256).digest()
    for root in set(Root) - {Root.PREVIEWS}:
        assert FLEET[root] == hkdf(extracted, b"pointillist v1 root\0" + root.value.encode())
    assert FLEET[Root.PREVIEWS] == hkdf(FLEET[Root.PICTURE], b"pointillist v1 previews")
    assert len({FLEET[root] for root in Root}) == len(Root)


def test_only_processors_have_the_keys_of_frames_and_bridges_only_the_verification_key() -> None:
    assert Role.BRIDGE.roots == {Root.AUTHENTICATION}
    assert {role for role in Role if Root.PICTURE in role.roots} == {Role.PROCESSOR}
    assert {role for role in Role if Root.PREVIEWS in role.roots} == {Role.PROCESSOR, Role.RECORDER, Role.CONSOLE}
    readers = {Role.PROCESSOR, Role.RECORDER, Role.AUDITOR, Role.CONSOLE}
    assert {role for role in Role if Root.VERDICTS in role.roots} == readers
    assert {role for role in Role if Root.ALERTS in role.roots} == {Role.RECORDER}


@pytest.mark.parametrize("role", Role)
def test_a_roles_secret_can_be_imported_and_has_only_its_own_roots(role: Role) -> None:
    text = FLEET.of(role).export()
    found = Roots.from_export(f" {text}\n", role)
    assert found.export() == text
    assert {root for root in Root if root in found} == role.roots
    for root in set(Root) - role.roots:
        assert FLEET[root].hex() not in text
        with pytest.raises(SecretError, match=f"root key {root}"):
            found[root]


@pytest.mark.parametrize("other", sorted(set(Role) - {Role.BRIDGE, Role.OPERATOR}))
def test_the_secret_of_another_role_is_rejected_by_name(other: Role) -> None:
    with pytest.raises(
        SecretError, match=r"the secret of the role bridge: expected the root keys.*pointillist key --role bridge"
    ):
        Roots.from_export(FLEET.of(other).export(), Role.BRIDGE)


@pytest.mark.parametrize(
    "text", ["", "00" * 32, "authentication:zz", "authentication:" + "00" * 31, "else:" + "0" * 64]
)
def test_an_invalid_secret_of_a_role_is_rejected_without_showing_it(text: str) -> None:
    with pytest.raises(SecretError, match="bridge") as caught:
        Roots.from_export(text, Role.BRIDGE)
    assert "00" * 31 not in str(caught.value)


def test_a_secret_without_roots_is_reported_as_empty() -> None:
    with pytest.raises(SecretError, match="expected the root keys authentication, got none"):
        Roots.from_export("", Role.BRIDGE)


def test_the_repr_of_roots_hides_the_keys() -> None:
    assert repr(FLEET.of(Role.BRIDGE)) == "Roots(authentication)"
    with pytest.raises(SecretError, match="at least 16 bytes"):
        Roots.of_fleet(b"short")

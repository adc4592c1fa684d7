"""The files of the fleet's authority after a crash, damage or a wrong clock: the next start repairs them."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509

from infra.admission import role_revocation
from infra.admission.role_revocation import revoke_role
from infra.pki import authority as authorities
from infra.pki.authority import LOCAL_HOSTS, Authority, certificate_hosts
from infra.pki.roles import SERVERS, Roles, rights_file
from infra.state_folder import Layout
from schemas.identity import CameraId
from schemas.runtime.atomic_file import write_durably
from schemas.transport.access import Tls
from tests.infra.secure import make_fleet

DOOR = CameraId("site/door")


@pytest.fixture
def fleet(tmp_path: Path) -> Layout:
    return make_fleet(tmp_path / "fleet")


def read_list(file: Path) -> tuple[set[int], datetime.datetime]:
    """Return the serial numbers and the date of a revocation list."""
    found = x509.load_pem_x509_crl(file.read_bytes())
    return {entry.serial_number for entry in found}, found.last_update_utc


def test_a_revocation_list_dated_in_the_future_is_replaced_once_the_clock_is_right(
    fleet: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ahead(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Ahead:
            return cls.fromtimestamp(time.time() + 60 * 86_400, tz)

    ahead = SimpleNamespace(datetime=Ahead, timedelta=datetime.timedelta, UTC=datetime.UTC)
    with monkeypatch.context() as patch:
        patch.setattr(authorities, "datetime", ahead)
        Authority(fleet.pki).revoke({1: DOOR})
    assert read_list(fleet.pki / "crl.pem")[1] > datetime.datetime.now(datetime.UTC)
    Roles(Authority(fleet.pki)).renew()
    written = (fleet.pki / "crl.pem").read_bytes()
    numbers, dated = read_list(rights_file(fleet.pki).with_name("crl.pem"))
    assert numbers == {1}
    assert dated < datetime.datetime.now(datetime.UTC)
    Roles(Authority(fleet.pki)).renew()
    assert (fleet.pki / "crl.pem").read_bytes() == written


def test_a_revocation_that_a_crash_interrupted_reaches_the_list_of_the_servers(
    fleet: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(path: Path, text: str, *, private: bool = False) -> None:
        if path.name == "crl.pem":
            raise OSError(5, "Input/output error")
        write_durably(path, text, private=private)

    with monkeypatch.context() as patch:
        patch.setattr(authorities, "write_durably", crash)
        with pytest.raises(OSError, match="Input/output error"):
            Authority(fleet.pki).revoke({1: DOOR})
    assert (set(Authority(fleet.pki).revoked()), Authority(fleet.pki).on_list()) == ({1}, set())
    Roles(Authority(fleet.pki)).ensure((), LOCAL_HOSTS)
    assert read_list(rights_file(fleet.pki).with_name("crl.pem"))[0] == {1}


@pytest.mark.parametrize("damage", ["empty", "no text", "cut", "of another authority"])
def test_a_damaged_revocation_list_is_written_again_by_the_next_start(
    fleet: Layout, tmp_path: Path, damage: str
) -> None:
    Authority(fleet.pki).revoke({1: DOOR})
    file = fleet.pki / "crl.pem"
    other = Authority.create(tmp_path / "pki")
    other.revoke({1: DOOR})
    content = {"empty": b"", "no text": b"\xff\xfe", "cut": file.read_bytes()[:100]}
    file.write_bytes(content.get(damage, (other.folder / "crl.pem").read_bytes()))
    Roles(Authority(fleet.pki)).ensure((), LOCAL_HOSTS)
    copy = rights_file(fleet.pki).with_name("crl.pem")
    assert read_list(copy)[0] == {1}
    assert x509.load_pem_x509_crl(copy.read_bytes()).issuer == Authority(fleet.pki).certificate.subject


@pytest.mark.parametrize("repair", [lambda roles: roles.ensure(["bridge"], LOCAL_HOSTS), lambda roles: roles.renew()])
def test_a_revoked_certificate_of_an_interrupted_revocation_is_replaced(
    fleet: Layout, monkeypatch: pytest.MonkeyPatch, repair: Callable[[Roles], object]
) -> None:
    def crash(*_: object) -> int:
        raise OSError(5, "Input/output error")

    roles = Roles(Authority(fleet.pki))
    with monkeypatch.context() as patch:
        patch.setattr(role_revocation, "raise_role_generation", crash)
        with pytest.raises(OSError, match="Input/output error"):
            revoke_role(fleet, "bridge")
    kept = roles.current("processor")
    assert roles.current("bridge") in roles.authority.on_list()
    repair(roles)
    assert roles.current("bridge") not in roles.authority.on_list()
    assert roles.current("processor") == kept


@pytest.mark.parametrize("name", ["bridge", "mosquitto", "kafka"])
@pytest.mark.parametrize("content", ["the key of a crash", "no key"])
def test_a_certificate_with_another_key_is_replaced_and_keeps_its_hosts(fleet: Layout, name: str, content: str) -> None:
    roles = Roles(Authority(fleet.pki))
    server = name in SERVERS
    roles.issue(name, (*LOCAL_HOSTS, "broker.example"))
    kept = roles.current("processor")
    other = roles.authority.issue(name).key
    (roles.folder(name) / "tls.key").write_text(other if content == "the key of a crash" else content)
    roles.renew()
    Tls.of_folder(roles.folder(name)).context()
    assert certificate_hosts(roles.folder(name) / "tls.crt") == ([*LOCAL_HOSTS, "broker.example"] if server else [])
    assert roles.current("processor") == kept
    assert roles.renew() == {}

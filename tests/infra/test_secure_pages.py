"""The console's pages by HTTPS."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from consumers.console.access import acceptor
from infra.pki.authority import LOCAL_HOSTS, Authority
from schemas.errors import ConfigError
from schemas.runtime.atomic_file import write_text
from schemas.transport.access import Tls
from tests.consumers.served_console import Connections, get, serving


def issue_certificate(folder: Path) -> Authority:
    """Create an authority, and write a certificate of the pages to the folder `tls`."""
    authority = Authority.create(folder / "pki")
    issued = authority.issue("pages", hosts=LOCAL_HOSTS, client=False)
    write_text(folder / "tls" / "tls.crt", issued.certificate, private=True)
    write_text(folder / "tls" / "tls.key", issued.key, private=True)
    return authority


async def test_clients_that_trust_the_authority_get_the_pages_by_https(tmp_path: Path) -> None:
    authority, other = issue_certificate(tmp_path), Authority.create(tmp_path / "other")
    async with serving(tmp_path, http_tls=tmp_path / "tls") as (port, _):
        assert (await get(port, "/health", tls=Tls(authority.pem).context()))[0] == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            await get(port, "/health", tls=Tls(other.pem).context())


async def test_pages_without_their_certificate_do_not_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tls\.crt and .*: expected a certificate and its private key"):
        async with serving(tmp_path, http_tls=tmp_path):
            pass


async def test_connections_without_a_handshake_displace_only_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "MAX_HANDSHAKES", 4)
    authority = issue_certificate(tmp_path)
    async with serving(tmp_path, http_tls=tmp_path / "tls") as (port, _), Connections(port) as clients:
        for _ in range(2):
            silent = [await clients.open() for _ in range(12)]
            assert all([await each.has_ended() for each in silent[:8]])
            assert (await get(port, "/health", tls=Tls(authority.pem).context()))[0] == 200

"""The pages by HTTPS."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from infra.pki.authority import LOCAL_HOSTS, Authority, write_private
from schemas.errors import ConfigError
from schemas.runtime.access import Tls
from tests.consumers.pages_rig import get, serving


async def test_the_pages_are_served_by_https_to_whoever_trusts_their_authority(tmp_path: Path) -> None:
    authority, other = Authority.create(tmp_path / "pki"), Authority.create(tmp_path / "other")
    issued = authority.issue("pages", hosts=LOCAL_HOSTS, client=False)
    write_private(tmp_path / "tls" / "tls.crt", issued.certificate)
    write_private(tmp_path / "tls" / "tls.key", issued.key)
    async with serving(tmp_path, tmp_path / "tls") as served:
        assert (await get(served.port, "/cameras", tls=Tls(authority.pem).context()))[0] == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            await get(served.port, "/cameras", tls=Tls(other.pem).context())


async def test_pages_without_their_certificate_do_not_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected a certificate and its private key in .*tls\.crt"):
        async with serving(tmp_path, tmp_path):
            pass

"""Cameras with revoked certificates: the broker rejects them all, until they are enrolled again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from infra.state_folder import read_text
from infra.state_folder.identity_lock import changing_identities
from schemas.runtime.atomic_file import write_durably


def refused(pki: Path) -> set[str]:
    """Return the cameras without rights."""
    try:
        return set(read_text(pki / "refused").split())
    except FileNotFoundError:
        return set()


def refuse(pki: Path, cameras: Iterable[str]) -> None:
    """Deny `cameras` all rights."""
    with changing_identities(pki.parent):
        _write(pki, refused(pki) | set(cameras))


def readmit(pki: Path, cameras: Iterable[str]) -> None:
    """Restore the rights of `cameras` that receive new certificates."""
    with changing_identities(pki.parent):
        before = refused(pki)
        if before & set(cameras):
            _write(pki, before - set(cameras))


def _write(pki: Path, cameras: set[str]) -> None:
    write_durably(pki / "refused", "".join(f"{camera}\n" for camera in sorted(cameras)))

"""Serial numbers of the certificates of each camera and role: a revocation needs them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

from infra.state_folder import read_text
from infra.state_folder.identity_lock import changing_identities
from schemas.errors import StateError
from schemas.runtime.atomic_file import write_durably

_MOST_BITS: Final = 160
"""Serial numbers of X.509 have 20 octets at most and are positive."""


def note_serial(pki: Path, holder: str, serial: int) -> None:
    """Add the serial number of a certificate of `holder`, a camera or a role."""
    file = _serials(pki, holder)
    with changing_identities(pki.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_durably(file, "".join(f"{each:x}\n" for each in [*serials(pki, holder), serial]))


def serials(pki: Path, holder: str) -> list[int]:
    """Return the serial numbers of the certificates of `holder`, the newest last. Raises StateError if damaged."""
    file = _serials(pki, holder)
    try:
        return [_number(file, line) for line in read_text(file).split()]
    except FileNotFoundError:
        return []


def issued_roles(pki: Path) -> set[str]:
    """Return the instances of roles for which certificates were issued, those whose folder was removed too."""
    return {file.stem for file in (pki / "issued").glob("*.serials")}


def _number(file: Path, line: str) -> int:
    with suppress(ValueError):
        if (number := int(line, 16)).bit_length() < _MOST_BITS:
            return number
    raise StateError(
        f"{file}: expected a hexadecimal number of less than {_MOST_BITS} bits in each line, got {line[:50]!r}. "
        "Restore the file, or remove the line."
    )


def _serials(pki: Path, holder: str) -> Path:
    # A camera's name holds a slash, and its site could have the name of a role's file.
    return pki / ("cameras" if "/" in holder else "issued") / f"{holder}.serials"

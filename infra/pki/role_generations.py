"""Generations of the roles' certificates: Kafka reads no revocation list and accepts only the present generation."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from infra.state_folder.identity_lock import changing_identities
from schemas.runtime.json_files import read_object, write_json

GENERATIONS_FILE: Final = "role-generations.json"


def role_generations(folder: Path) -> dict[str, int]:
    """Return the accepted generation of each role that is not at zero, from the file in `folder`; empty without one."""
    form = '{"role": generation} with whole numbers'
    return read_object(folder / GENERATIONS_FILE, form, _numbers)


def raise_role_generation(pki: Path, role: str) -> int:
    """Accept the next generation of a role's certificates instead of the present one; return its number."""
    with changing_identities(pki.parent):
        known = role_generations(pki)
        known[role] = known.get(role, 0) + 1
        write_json(pki / GENERATIONS_FILE, known, durably=True)
        return known[role]


def _numbers(found: dict[str, Any]) -> dict[str, int]:
    if not all(isinstance(number, int) for number in found.values()):
        raise ValueError
    return found

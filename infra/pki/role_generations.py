"""Generations of the roles' certificates: Kafka reads no revocation list and accepts only the present generation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from infra.state_folder.identity_lock import changing_identities
from schemas.errors import StateError
from schemas.runtime.atomic_file import write_durably

GENERATIONS_FILE: Final = "role-generations.json"


def role_generations(folder: Path) -> dict[str, int]:
    """Return the accepted generation of each role that is not at zero, from the file in `folder`; empty without one."""
    file = folder / GENERATIONS_FILE
    try:
        content = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except ValueError:
        raise StateError(f"{file}: expected JSON, got something else. Restore the file.") from None
    if not isinstance(content, dict) or not all(isinstance(number, int) for number in content.values()):
        raise StateError(
            f'{file}: expected {{"role": generation}} with whole numbers, got another form. Restore the file.'
        )
    return {str(role): number for role, number in content.items()}


def raise_role_generation(pki: Path, role: str) -> int:
    """Accept the next generation of a role's certificates instead of the present one; return its number."""
    with changing_identities(pki.parent):
        known = role_generations(pki)
        known[role] = known.get(role, 0) + 1
        write_durably(pki / GENERATIONS_FILE, json.dumps(known, indent=2, sort_keys=True) + "\n")
        return known[role]

"""The ledger of harmless changes: pairs of code digests between which a row stays current.

Each line of `ledger.jsonl` is one pair with its proof, and is reviewed like code. A pair holds for rows of the same
entries of code; pairs of the same entries form chains.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Final

from schemas.errors import ConfigError

LEDGER: Final = Path(__file__).with_name("ledger.jsonl")


@dataclass(frozen=True)
class Pair:
    """Two digests of the code of `code`, and the proof that a change from the one to the other is harmless."""

    code: tuple[str, ...]
    older: str
    newer: str
    proof: str
    """`golden batch`: the outputs agree, and each changed line is executed."""


def read(file: Path = LEDGER) -> list[Pair]:
    """Return all pairs. Raises ConfigError for a line of another form."""
    if not file.is_file():
        return []
    pairs = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            values = json.loads(line)
            pairs.append(Pair(**{**values, "code": tuple(values["code"])}))
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{file}, line {number}: expected a pair, got {error!r}. Restore the file.") from None
    return pairs


def append(pairs: Iterable[Pair], file: Path = LEDGER) -> None:
    """Append the pairs that the file does not hold yet."""
    known = set(read(file))
    with file.open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps(asdict(pair)) + "\n" for pair in pairs if pair not in known)


@cache
def _shipped() -> tuple[Pair, ...]:
    return tuple(read())


def is_harmless(code: Sequence[str], older: str, newer: str, pairs: Iterable[Pair] | None = None) -> bool:
    """Return whether a chain of pairs leads from the digest of a row to the digest of today's code."""
    mine = [pair for pair in (_shipped() if pairs is None else pairs) if pair.code == tuple(code)]
    reached, waiting = set[str](), [older]
    while waiting:
        digest = waiting.pop()
        if digest == newer:
            return True
        reached.add(digest)
        waiting += [pair.newer for pair in mine if pair.older == digest and pair.newer not in reached]
    return False

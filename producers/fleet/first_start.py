"""The first start of a fleet, distinguished from a restart by a file in the state folder."""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass
from pathlib import Path

from producers.fleet.part import WHOLE, Part
from schemas.errors import StateError
from schemas.runtime.atomic_file import replacing


def fleet_started(state: Path, part: Part = WHOLE) -> Path:
    """Return the file with the time of a part's first capture; without it the next start is the first."""
    return state / ("fleet.json" if part.parts == 1 else f"fleet-{part.number}.json")


def forget_starts(state: Path) -> None:
    """Remove the files of all parts of an earlier run, whatever their number was."""
    for mark in [fleet_started(state), *state.glob("fleet-*.json")]:
        mark.unlink(missing_ok=True)


class DamagedStartError(StateError):
    """A file of a start that the disk does not return, or with other content."""


@dataclass(frozen=True)
class Start:
    """The file `mark`, which is missing at the first start and present at a restart."""

    mark: Path

    def first(self, source: str = "") -> tuple[int | None, bool]:
        """Return the time of the run's first capture, Unix time in milliseconds, and whether the run is over.

        The time is None before the first capture, and if the run had another `source`: a key generation and a hash
        under that key. Hashes of different generations are not compared. Raises `StateError` when the file is
        unreadable, `DamagedStartError` when it is damaged.
        """
        try:
            noted = json.loads(self.mark.read_text())
            before = str(noted.get("source", ""))
            if before != source and before.split(" ")[0] == source.split(" ")[0]:
                return None, False
            return int(noted["started_ms"]), bool(noted.get("over"))
        except FileNotFoundError:
            return None, False
        except OSError as error:
            got = f"{self.mark}: expected a readable file, got {error.strerror}."
            if error.errno == errno.EIO:
                raise DamagedStartError(f"{got} Check the disk.") from None
            raise StateError(f"{got} Correct its rights.") from None
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            raise DamagedStartError(
                f"{self.mark}: expected the start of a fleet, got another text. Delete the file to begin again."
            ) from None

    def note(self, started_ms: int, over: bool = False, source: str = "") -> int:
        """Store whether the run is over, its source if it has one, and its first capture time, which is returned;
        `StateError` if that fails."""
        noted = {"started_ms": started_ms, "over": over} | ({"source": source} if source else {})
        try:
            with replacing(self.mark) as fresh:
                fresh.write_text(json.dumps(noted))
        except OSError as error:
            raise StateError(
                f"{self.mark}: expected a writable file, got {error.strerror}. Correct its rights."
            ) from None
        return started_ms

    def forget(self) -> None:
        """Remove the file, so that the next start counts as the first; OSError if that fails."""
        self.mark.unlink(missing_ok=True)

"""The proof that a change is harmless: an older checkout compared with this one by the golden batch."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.experiments.harness.ledger import Pair
from lab.golden import parts
from lab.golden.changes import Lines, Uncovered, traced, uncovered
from lab.provenance import PACKAGES, ROOT, Repository
from schemas.errors import ConfigError


@dataclass(frozen=True)
class Judged:
    """A family of rows with the same entries of code: its digests, and the changes that nothing covers."""

    code: tuple[str, ...]
    older: str
    newer: str
    uncovered: tuple[Uncovered, ...]

    @property
    def pair(self) -> Pair:
        """The pair of digests for the ledger."""
        return Pair(self.code, self.older, self.newer, "golden batch")


@contextmanager
def checkout(revision: str, root: Path = ROOT) -> Iterator[Repository]:
    """Provide the packages of a git revision in a temporary folder. Raises ConfigError for an unknown revision."""
    found = subprocess.run(
        ["git", "archive", revision, *PACKAGES], cwd=root, capture_output=True, check=False
    )  # fmt: skip
    if found.returncode:
        message = found.stderr.decode(errors="replace").strip().splitlines()
        raise ConfigError(f"revision: expected one of git, got {revision!r} ({' '.join(message)}). Correct it.")
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
        archive.extractall(folder, filter="data")
        yield Repository(Path(folder))


def older_outputs(older: Repository) -> parts.Outputs:
    """Return the outputs that the older checkout stored; if it stored none, let its code compute them.

    Raises ConfigError if the older code does not have what the golden batch calls.
    """
    stored = older.root / parts.FILE.relative_to(ROOT)
    if stored.is_file():
        return parts.stored(stored)
    script = "import sys, numpy; sys.path.insert(0, sys.argv[1]); import runpy; " \
        "numpy.savez(sys.argv[3], **runpy.run_path(sys.argv[2])['computed']())"  # fmt: skip
    made = older.root / "golden.npz"
    command = [sys.executable, "-c", script, str(older.root), str(Path(parts.__file__)), str(made)]
    found = subprocess.run(command, cwd=older.root, capture_output=True, text=True, check=False)
    if found.returncode:
        last = found.stderr.strip().splitlines()[-1:]
        raise ConfigError(f"golden batch: the older code cannot compute it ({' '.join(last)}). Measure the rows again.")
    return parts.stored(made)


def traced_outputs() -> tuple[parts.Outputs, Lines]:
    """Return the outputs of this code, and the lines that made them."""
    return traced(parts.computed, Repository())


def judged(older: Repository, families: Iterable[Sequence[str]], lines: Lines) -> list[Judged]:
    """Compare the older checkout with this one for each family whose digest differs."""
    newer, found = Repository(), []
    for code in families:
        try:
            before = older.digest(*code)
        except (ModuleNotFoundError, AttributeError):
            continue
        now = newer.digest(*code)
        if before != now:
            found.append(Judged(tuple(code), before, now, tuple(uncovered(older, newer, tuple(code), lines))))
    return found

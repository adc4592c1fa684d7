"""Checkpoints of an interrupted repair: one file for each step, valid only for the same inputs."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from schemas.runtime.atomic_file import replacing


@dataclass(frozen=True)
class Checkpoint:
    """One step's state in `file`, or nowhere if None. `inputs` identifies the inputs of the repair."""

    file: Path | None
    inputs: str

    def load(self) -> dict[str, Any] | None:
        """Return the state saved for the same inputs, if there is one."""
        if self.file is None or not self.file.is_file():
            return None
        try:
            saved: dict[str, Any] = torch.load(self.file, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError):
            return None
        return saved["state"] if saved.get("inputs") == self.inputs else None

    def save(self, state: dict[str, Any]) -> None:
        """Replace the file atomically: a kill leaves the old state or the new."""
        if self.file is None:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.file) as fresh:
            torch.save({"inputs": self.inputs, "state": state}, fresh)


@dataclass(frozen=True)
class Checkpoints:
    """The steps' checkpoints in `folder`, or nowhere if None."""

    folder: Path | None
    inputs: str

    def of(self, step: str) -> Checkpoint:
        """Return the checkpoint of one step."""
        return Checkpoint(None if self.folder is None else self.folder / f"{step}.pt", self.inputs)


def digest(*parts: str | NDArray[np.generic]) -> str:
    """Return the SHA-256 of texts and arrays in sequence."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes()
        total.update(len(data).to_bytes(8, "little") + data)
    return total.hexdigest()

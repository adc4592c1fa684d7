"""The cache of choices: which backend was the fastest for a network on this machine, and the model that it compiled.

An entry is found by the network's weights, the request, the pictures of the trial, the versions of the runtimes and the
processor. An entry replaces measurements only: its model is compared with the network's own runtime like any other.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, NamedTuple

import structlog
import torch
from torch import Tensor, nn

from processors.bundle.formats import Network, OnnxNetwork
from processors.device.backends.contract import COARSER, CpuPrecision

MOST_BYTES: Final = 512 * 2**20
"""Bound of the folder; the entries that were used least recently are removed."""
_CHOICE: Final = "choice.json"
_MODEL: Final = "model.xml"
_RUNTIMES: Final = ("torch", "openvino", "onnxruntime", "pointillist")
_PROCESSOR: Final = ("model name", "flags", "CPU part", "Features")

log = structlog.get_logger()


class CachedChoice(NamedTuple):
    """An entry: the chosen backend, its precision, its speedup in the trial, and the file of its model."""

    backend: str
    precision: CpuPrecision
    speedup: float
    model: Path


@dataclass(frozen=True)
class ChoiceCache:
    """The cache in `folder`, which is created on the first write."""

    folder: Path

    def find(self, key: str) -> CachedChoice | None:
        """Return the entry of a key; None without a readable one."""
        entry = self.folder / key
        try:
            noted = json.loads((entry / _CHOICE).read_text(encoding="utf-8"))
            backend, precision, speedup = str(noted["backend"]), noted["precision"], float(noted["speedup"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if precision not in ("float32", *COARSER):
            return None
        with suppress(OSError):
            os.utime(entry)
        return CachedChoice(backend, precision, speedup, entry / _MODEL)

    def keep(
        self, key: str, backend: str, precision: CpuPrecision, speedup: float, save: Callable[[Path], None] | None
    ) -> None:
        """Write the entry of a key in one step; `save` writes its model, None without one. A failure is logged only."""
        choice = {"backend": backend, "precision": precision, "speedup": speedup}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=".") as scratch:
                fresh = Path(scratch, key)
                fresh.mkdir()
                if save is not None:
                    save(fresh / _MODEL)
                (fresh / _CHOICE).write_text(json.dumps(choice), encoding="utf-8")
                shutil.rmtree(self.folder / key, ignore_errors=True)
                fresh.rename(self.folder / key)
            self._bound()
        except Exception as error:  # a runtime may raise anything, and the choice stands without an entry
            log.warning("choice_not_cached", error=f"{type(error).__name__}: {error}")

    def _bound(self) -> None:
        """Remove the least recently used entries beyond `MOST_BYTES`."""
        entries = sorted(self.folder.glob("[!.]*"), key=lambda entry: entry.stat().st_mtime, reverse=True)
        total = 0
        for entry in entries:
            total += sum(file.stat().st_size for file in entry.iterdir())
            if total > MOST_BYTES:
                shutil.rmtree(entry, ignore_errors=True)


def key_of(network: Network, tensors: Iterable[Tensor | None], *request: object) -> str | None:
    """Return the key of a choice: hexadecimal digits over all that it depends on; None if `network` has no weights to
    identify it by.

    `tensors` are the pictures of the trial and of the calibration, `request` what was asked for.
    """
    weights = _weights_of(network)
    if weights is None:
        return None
    digest = hashlib.sha256(repr((type(network).__qualname__, request, torch.get_num_threads())).encode())
    digest.update(_machine().encode())
    for part in weights:
        digest.update(part)
    for tensor in tensors:
        digest.update(b"none" if tensor is None else _bytes_of(tensor))
    return digest.hexdigest()[:32]


def _weights_of(network: Network) -> list[bytes] | None:
    if isinstance(network, OnnxNetwork):
        return [network.path.read_bytes()]
    if not isinstance(network, nn.Module):
        return None
    return [name.encode() + _bytes_of(value) for name, value in network.state_dict().items()] or None


def _bytes_of(tensor: Tensor) -> bytes:
    values = tensor.detach().cpu().contiguous().flatten()
    return repr((tensor.dtype, tuple(tensor.shape))).encode() + values.view(torch.uint8).numpy().tobytes()


def _machine() -> str:
    """Return the versions of the runtimes, and the processor with its instructions."""
    found = [f"{name} {_version(name)}" for name in _RUNTIMES]
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
        found += [line for line in lines if line.startswith(_PROCESSOR)]
    return "\n".join(found)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""

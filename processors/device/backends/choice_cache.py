"""The cache of choices: which backend was the fastest for a network on this machine, and the model that it compiled.

An entry is found by the network's weights, the request, the pictures of the trial, the versions of the runtimes, the
code of the backends with its tolerances, and the processor. An entry replaces measurements only: its model is compared
with the network's own runtime like any other. That comparison would not reveal a replaced model, so only a folder and
entries that no other user may write are used.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import time
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
from schemas.errors import typed_text

MOST_BYTES: Final = 512 * 2**20
"""Bound of the folder; the entries that were used least recently are removed."""
LASTS_S: Final = 30 * 86400.0
"""Age from which an entry is measured again: a trial under load may have chosen a slow backend."""
_SCRATCH_S: Final = 3600.0
"""Age from which the scratch folder of a killed process is removed."""
_OURS: Final = "choices-1"
"""The cache's own folder in the configured one, named by the version of its form."""
_KEY: Final = re.compile("[0-9a-f]{32}")
_SCRATCH: Final = ".scratch-"
_CHOICE: Final = "choice.json"
_MODEL: Final = "model.xml"
_RUNTIMES: Final = ("torch", "openvino", "onnxruntime", "pointillist")
_PROCESSOR: Final = ("model name", "flags", "CPU part", "Features")
_CODE: Final = Path(__file__).parent

log = structlog.get_logger()


class CachedChoice(NamedTuple):
    """An entry: the chosen backend, its precision, its speedup in the trial, and the file of its model."""

    backend: str
    precision: CpuPrecision
    speedup: float
    model: Path


@dataclass(frozen=True)
class ChoiceCache:
    """The cache in the private folder `folder`; see `open_cache`."""

    folder: Path

    def find(self, key: str) -> CachedChoice | None:
        """Return the entry of a key; None without a readable one that is private and not too old."""
        entry = self.folder / key
        try:
            for path in (self.folder, entry, *entry.iterdir()):
                check_private(path)
            if abs(time.time() - (entry / _CHOICE).stat().st_mtime) > LASTS_S:
                return None
            noted = json.loads((entry / _CHOICE).read_text(encoding="utf-8"))
            backend, precision, speedup = str(noted["backend"]), noted["precision"], float(noted["speedup"])
        except PermissionError as error:
            log.warning("cached_choice_rejected", error=str(error))
            return None
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
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=_SCRATCH) as scratch:
                fresh = Path(scratch, key)
                fresh.mkdir(mode=0o700)
                if save is not None:
                    save(fresh / _MODEL)
                (fresh / _CHOICE).write_text(json.dumps(choice), encoding="utf-8")
                for file in fresh.iterdir():
                    file.chmod(0o600)
                self._put(fresh, Path(scratch, "former"))
        except Exception as error:  # a runtime may raise anything, and the choice stands without an entry
            log.warning("choice_not_cached", error=typed_text(error))
        self._bound()

    def _put(self, fresh: Path, former: Path) -> None:
        """Move an entry into the cache; the entry that it replaces becomes `former`."""
        entry = self.folder / fresh.name
        with suppress(FileNotFoundError):
            entry.rename(former)
        try:
            fresh.rename(entry)
        except OSError:
            # Another process may have written the same entry since.
            if not (entry / _CHOICE).is_file():
                raise

    def _bound(self) -> None:
        """Remove the least recently used entries beyond `MOST_BYTES`, and old scratch folders."""
        total = 0
        for used_s, path in sorted(self._folders(), reverse=True):
            try:
                total += sum(file.stat().st_size for file in path.iterdir())
                abandoned = path.name.startswith(_SCRATCH) and time.time() - used_s > _SCRATCH_S
                if abandoned or (total > MOST_BYTES and _KEY.fullmatch(path.name)):
                    shutil.rmtree(path)
            except FileNotFoundError:
                continue  # another process has removed it
            except OSError as error:
                log.warning("cached_choice_not_removed", entry=path.name, error=typed_text(error))

    def _folders(self) -> list[tuple[float, Path]]:
        """Return the entries and scratch folders with the time of their last use."""
        found = []
        with suppress(OSError):
            for path in self.folder.iterdir():
                with suppress(OSError):
                    status = path.lstat()
                    entry = _KEY.fullmatch(path.name) and (path / _CHOICE).is_file()
                    if stat.S_ISDIR(status.st_mode) and (entry or path.name.startswith(_SCRATCH)):
                        found.append((status.st_mtime, path))
        return found


def open_cache(folder: Path) -> ChoiceCache | None:
    """Return the cache in a private folder of its own in `folder`; None with a line in the log if there can be none."""
    own = folder / _OURS
    try:
        own.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_private(own)
    except OSError as error:
        log.warning("backend_cache_rejected", error=str(error))
        return None
    return ChoiceCache(own)


def check_private(path: Path) -> None:
    """Raise PermissionError unless this user owns a file or folder and nobody else may write it."""
    found = path.lstat()
    if found.st_uid != os.geteuid() or stat.S_ISLNK(found.st_mode) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(
            f"{path}: expected a file or folder that only the user {os.geteuid()} can write, got the owner "
            f"{found.st_uid} and the mode {stat.filemode(found.st_mode)}. Remove it."
        )


def key_of(network: Network, tensors: Iterable[Tensor | None], *request: object) -> str | None:
    """Return the key of a choice: hexadecimal digits over all that it depends on; None if `network` has no weights to
    identify it by.

    `tensors` are the pictures of the trial and of the calibration, `request` what was asked for.
    """
    weights = _weights_of(network)
    if weights is None:
        return None
    digest = hashlib.sha256(repr((type(network).__qualname__, request, torch.get_num_threads())).encode())
    digest.update(machine_state().encode())
    for file in sorted(_CODE.glob("*.py")):
        digest.update(file.read_bytes())
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


def machine_state() -> str:
    """Return the versions of the networks' runtimes, and the processor with its instructions."""
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

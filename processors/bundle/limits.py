"""Limits on a bundle's files before a library opens them: bytes, members, compression ratio, header contents.

A few kilobytes can announce more than any memory holds. Each check reads headers only, and raises BundleError.
"""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from typing import IO, Final

import numpy as np

from schemas.errors import BundleError, first_line
from schemas.messages.models import MAX_BUNDLE_BYTES

MAX_SETTINGS_BYTES: Final = 2**20
"""Size limit of a `model.toml`: thresholds and classes are some kilobytes."""
MAX_HEADER_BYTES: Final = 2**24
"""Size limit of a safetensors header: about a hundred bytes for each tensor."""
MAX_TENSORS: Final = 2**16
MAX_MEMBERS: Final = 2**16
"""Limit of files in an archive: TorchScript has one for each tensor and each source file."""
MAX_RATIO: Final = 32
"""Limit of an archive's compression ratio: tensors are stored uncompressed, source code shrinks to a tenth."""
_SOME: Final = 2**20
"""Bytes for which the ratio does not count."""


def check_size(file: Path, most: int = MAX_BUNDLE_BYTES) -> int:
    """Return the size of a file in bytes, at most `most`."""
    size = file.stat().st_size
    if size > most:
        raise BundleError(f"{file.name}: expected at most {most} bytes, got {size}. Choose a smaller network.")
    return size


def check_safetensors(file: Path) -> None:
    """Check that a safetensors header is bounded and describes exactly the bytes in the file."""
    size = check_size(file)
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
            raise BundleError(
                f"{file.name}: expected a safetensors file with a header of at most {MAX_HEADER_BYTES} bytes, "
                f"inside its {size}, got one that announces {length}. Save the file again."
            )
        text = opened.read(length)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise BundleError(
            f"{file.name}: expected a safetensors file, got a header that is no JSON object. Save the weights again."
        )
    if len(header) > MAX_TENSORS:
        raise BundleError(
            f"{file.name}: expected at most {MAX_TENSORS} tensors, got {len(header)}. Choose a smaller network."
        )
    for name, entry in header.items():
        match entry if name != "__metadata__" else {"data_offsets": [0, 0]}:
            case {"data_offsets": [int(begin), int(end)]} if 0 <= begin <= end <= size - 8 - length:
                pass
            case _:
                raise BundleError(
                    f"{file.name}: expected tensors inside the file, got {name[:80]!r} elsewhere. Save the file again."
                )


def check_archive(file: Path, called: str = "a TorchScript file") -> None:
    """Check that a zip archive, as torch writes them, has a bounded number of members and bounded unpacked bytes."""
    size = check_size(file)
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise BundleError(f"{file.name}: expected {called}, got {first_line(error)}. Save the file again.") from None
    if len(members) > MAX_MEMBERS:
        raise BundleError(
            f"{file.name}: expected at most {MAX_MEMBERS} members, got {len(members)}. Choose a smaller network."
        )
    names = {member.filename for member in members}
    if len(names) != len(members):
        raise BundleError(f"{file.name}: expected members with distinct names, got one twice. Save the file again.")
    unpacked = sum(member.file_size for member in members)
    if unpacked > min(MAX_BUNDLE_BYTES, _SOME + MAX_RATIO * size):
        raise BundleError(
            f"{file.name}: expected to unpack to at most {MAX_RATIO} times its {size} bytes and "
            f"{MAX_BUNDLE_BYTES} in all, got {unpacked}. Choose a smaller network."
        )


def check_npy(file: Path) -> None:
    """Check that an .npy file holds the array that its header announces; its loader rejects other formats."""
    size = check_size(file)
    with file.open("rb") as opened:
        try:
            version = np.lib.format.read_magic(opened)
            shape, _, kind = _header(opened, version)
        except (ValueError, EOFError):
            return
        if kind.hasobject:
            return
        announced = math.prod(shape) * kind.itemsize
        if announced != size - opened.tell():
            raise BundleError(
                f"{file.name}: expected the {announced} bytes of {kind} {shape}, got {size - opened.tell()}. Save "
                "the file again."
            )


def _header(opened: IO[bytes], version: tuple[int, int]) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(opened)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(opened)
    raise ValueError(version)

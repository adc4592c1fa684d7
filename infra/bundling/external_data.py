"""External data of an ONNX graph: tensors whose bytes are in files next to it. The graph of a stranger may name any
file.

A file is accepted only directly next to the graph, with a known suffix, and neither hidden nor a link. A tensor must
state as many bytes as its shape and type require. Otherwise a graph could name a private key below its own folder, and
the key would be signed and published as weights.
"""

from __future__ import annotations

import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from processors.bundle.external_tensors import external_tensors
from schemas.errors import BundleError
from schemas.messages.models import MAX_BUNDLE_BYTES

if TYPE_CHECKING:
    import onnx

SUFFIXES: Final = (".data", ".bin", ".weights", ".onnx_data")
"""Suffixes of weight files, as exporters name them."""
_PACKED: Final = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
"""Bits of the types that share bytes."""
_LOAD: Final = "Load the graph with onnx.load and save it as one file with onnx.save."


@dataclass(frozen=True)
class Range:
    """The byte range of an external file that a tensor names."""

    location: str
    offset: int
    length: int


def take_in(model: onnx.ModelProto, file: Path) -> tuple[str, ...]:
    """Move all external data into `model`, which was read from `file`; return the names of the files, sorted.

    Raises BundleError for a rejected range. All ranges are checked before any file is opened.
    """
    wanted = [(tensor, _range(tensor, file)) for tensor in external_tensors(model)]
    total = sum(each.length for _, each in wanted)
    if total > MAX_BUNDLE_BYTES:
        raise BundleError(
            f"{file.name}: expected at most {MAX_BUNDLE_BYTES} bytes of external data, got {total}. Choose a "
            "smaller network."
        )
    for tensor, each in wanted:
        tensor.raw_data = _read(file, each)
        tensor.data_location = tensor.DEFAULT
        del tensor.external_data[:]
    return tuple(sorted({each.location for _, each in wanted}))


def _range(tensor: onnx.TensorProto, file: Path) -> Range:
    """Return the range that a tensor names, if its file may be a weight file next to `file`."""
    values = {each.key: each.value for each in tensor.external_data}
    location = values.get("location", "")
    name = f"{file.name}: external data of {tensor.name[:80]!r}"
    if location in ("", ".", "..") or "/" in location or "\\" in location or "\0" in location:
        raise BundleError(f"{name}: expected the name of a file next to the graph, got {location[:200]!r}. {_LOAD}")
    if location.startswith("."):
        raise BundleError(f"{name}: expected a file that is not hidden, got {location[:200]!r}. {_LOAD}")
    if not location.endswith(SUFFIXES):
        known = ", *".join(SUFFIXES)
        raise BundleError(f"{name}: expected a file named *{known}, got {location[:200]!r}. {_LOAD}")
    length = _announced(tensor, name)
    offset, stated = (_number(values.get(key), name, key) for key in ("offset", "length"))
    if stated is not None and stated != length:
        raise BundleError(f"{name}: expected the {length} bytes of its shape and type, got length {stated}. {_LOAD}")
    return Range(location, offset or 0, length)


def _number(text: str | None, name: str, key: str) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise BundleError(f"{name}: expected {key} as a number of bytes, got {text[:40]!r}. {_LOAD}")
    return int(text)


def _announced(tensor: onnx.TensorProto, name: str) -> int:
    """Return the bytes that a tensor's shape and type take."""
    from onnx import TensorProto, helper

    kind = tensor.data_type
    if kind in (TensorProto.UNDEFINED, TensorProto.STRING) or kind not in TensorProto.DataType.values():
        raise BundleError(f"{name}: expected a tensor of numbers, got type {kind}. {_LOAD}")
    if any(side < 0 for side in tensor.dims):
        raise BundleError(f"{name}: expected sides of 0 or more, got {list(tensor.dims)[:8]}. {_LOAD}")
    bits = _PACKED.get(TensorProto.DataType.Name(kind), 0)
    count = math.prod(tensor.dims)
    return -(-count * bits // 8) if bits else count * helper.tensor_dtype_to_np_dtype(kind).itemsize


def _read(graph: Path, wanted: Range) -> bytes:
    """Return the bytes of a range; the file is opened without following a link."""
    name = f"{graph.name}: external data {wanted.location[:200]!r}"
    try:
        with open(graph.parent / wanted.location, "rb", opener=_without_links) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise BundleError(f"{name}: expected a plain file, got another kind. {_LOAD}")
            if wanted.offset + wanted.length > found.st_size:
                raise BundleError(
                    f"{name}: expected {wanted.length} bytes from byte {wanted.offset} on, got a file of "
                    f"{found.st_size}. Copy the whole file."
                )
            file.seek(wanted.offset)
            return file.read(wanted.length)
    except FileNotFoundError:
        raise BundleError(f"{name} is missing: expected it next to the graph. Copy it there.") from None
    except OSError as error:
        raise BundleError(f"{name}: expected a plain file, got {error.strerror}. {_LOAD}") from None


def _without_links(path: str, flags: int) -> int:
    """Open a file that is not a link. Opening a pipe of that name does not block."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)

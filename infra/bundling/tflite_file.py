"""A TensorFlow Lite file without the shape signatures of its tensors.

Keras converters state each shape twice: `shape` for one picture, and `shape_signature` with −1 for the number of
pictures. The loader accepts the first one. The file is a FlatBuffer with the schema
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/compiler/mlir/lite/schema/schema.fbs. A field is absent
if its entry in the vtable, which tables of one layout share, is 0.
"""

from __future__ import annotations

import struct
from typing import Final

_SUBGRAPHS: Final = 2
"""Field of the model."""
_TENSORS, _INPUTS = 0, 1
"""Fields of a subgraph."""
_SIGNATURE: Final = 7
"""Field of a tensor."""


def without_signatures(content: bytes) -> bytes:
    """Return the file without signatures. A damaged file, and one with free sides of pictures, is returned unchanged.

    Without its signature, an input with free sides would be one of a single pixel.
    """
    data = bytearray(content)
    try:
        for graph in _tables(data, _number(data, "<I", 0), _SUBGRAPHS):
            tensors = _tables(data, graph, _TENSORS)
            taken = [tensors[_number(data, "<i", place)] for place in _places(data, graph, _INPUTS)]
            signatures = [[_number(data, "<i", side) for side in _places(data, each, _SIGNATURE)] for each in taken]
            if any(side < 0 for signature in signatures for side in signature[1:]):
                return content
            for tensor in tensors:
                if (entry := _entry(data, tensor, _SIGNATURE)) is not None:
                    data[entry : entry + 2] = bytes(2)
    except (struct.error, IndexError):
        return content
    return bytes(data)


def _number(data: bytearray, form: str, place: int) -> int:
    if place < 0:
        raise IndexError(place)
    number: int = struct.unpack_from(form, data, place)[0]
    return number


def _entry(data: bytearray, table: int, field: int) -> int | None:
    """Return the place of a field's entry in the vtable of a table; None if the field is absent."""
    vtable = table - _number(data, "<i", table)
    entry = vtable + 4 + 2 * field
    inside = entry < vtable + _number(data, "<H", vtable)
    return entry if inside and _number(data, "<H", entry) else None


def _places(data: bytearray, table: int, field: int) -> range:
    """Return the places of the elements, of 4 bytes each, of a vector in a field."""
    entry = _entry(data, table, field)
    if entry is None:
        return range(0)
    place = table + _number(data, "<H", entry)
    vector = place + _number(data, "<I", place)
    first, end = vector + 4, vector + 4 + 4 * _number(data, "<I", vector)
    if end > len(data):
        raise IndexError(end)
    return range(first, end, 4)


def _tables(data: bytearray, table: int, field: int) -> list[int]:
    """Return the places of the tables in a vector of tables."""
    return [place + _number(data, "<I", place) for place in _places(data, table, field)]

"""The tensors of an ONNX graph whose bytes are in other files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx
    from google.protobuf.message import Message


def external_tensors(message: Message) -> Iterator[onnx.TensorProto]:
    """Yield each external tensor of a model, including graphs inside nodes, functions, sparse and training parts."""
    from google.protobuf.message import Message
    from onnx import TensorProto

    if isinstance(message, TensorProto):
        if message.data_location == message.EXTERNAL or message.external_data:
            yield message
        return
    for _, value in message.ListFields():
        inner = [value] if isinstance(value, Message) else value
        if isinstance(inner, (str, bytes, int, float)) or not len(inner) or not isinstance(inner[0], Message):
            continue
        for each in inner:
            yield from external_tensors(each)

"""A decoding process: `python -m processors.decoding.worker SOCKET MEMORY BYTES`, started by `process`.

SOCKET and MEMORY are inherited descriptors; BYTES is the address space that it may add. It ends with its socket.
"""

from __future__ import annotations

import json
import mmap
import signal
import socket
import sys
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray

from processors.decoding.protocol import TEXT_BYTES, UNIT_BYTES, Operation, Request, Status
from processors.decoding.sandbox import confine
from schemas.errors import first_line
from schemas.messages.access_unit import Codec
from schemas.pixels.planes import chroma_shape

_DECODERS: Final = {Codec.H264: "h264", Codec.AV1: "libdav1d"}
_FORMATS: Final = ("yuv420p", "yuvj420p")
_ALIGNED: Final = 64
"""Codecs round sides up to blocks of at most this size."""


def open_decoder(codec: Codec, height: int, width: int) -> av.VideoCodecContext:
    """Return a decoder of one thread that rejects larger pictures before it takes memory for them."""
    context = av.CodecContext.create(_DECODERS[codec], "r")
    assert isinstance(context, av.VideoCodecContext)
    context.thread_count = 1
    room = (-(-height // _ALIGNED) * _ALIGNED) * (-(-width // _ALIGNED) * _ALIGNED)
    context.options = {"max_pixels": str(room)}
    return context


def decode(context: av.VideoCodecContext, unit: bytes, height: int, width: int, place: NDArray[np.uint8]) -> None:
    """Decode one access unit to the planes at `place`. Raises ValueError unless it is one picture of this size."""
    frames = context.decode(av.Packet(unit))
    if len(frames) != 1:
        raise ValueError(f"expected one picture in an access unit, got {len(frames)}")
    frame = frames[0]
    size = (height + height % 2, width + width % 2)
    if frame.format.name not in _FORMATS or (frame.height, frame.width) != size:
        raise ValueError(
            f"expected {_FORMATS[0]} of {size[1]}x{size[0]}, got {frame.format.name} of {frame.width}x{frame.height}"
        )
    at = 0
    for plane, (rows, columns) in zip(frame.planes, ((height, width), *[chroma_shape(height, width)] * 2), strict=True):
        lines = np.frombuffer(memoryview(plane), dtype=np.uint8)[: rows * plane.line_size]
        place[at : at + rows * columns].reshape(rows, columns)[:] = lines.reshape(rows, plane.line_size)[:, :columns]
        at += rows * columns


def serve(link: socket.socket, memory: mmap.mmap) -> None:
    """Answer requests until the other end closes."""
    area = np.frombuffer(memory, dtype=np.uint8)
    planes = area[UNIT_BYTES:]
    decoders: dict[int, av.VideoCodecContext] = {}
    while packet := link.recv(64):
        request = Request.of(packet)
        number, text, status = request.decoder, "", Status.DECODED
        if request.operation is Operation.CLOSE:
            decoders.pop(number, None)
            continue
        try:
            if request.operation is not Operation.NEXT:
                decoders[number] = open_decoder(request.codec, request.height, request.width)
            unit = area[: request.unit_bytes].tobytes()
            decode(decoders[number], unit, request.height, request.width, planes)
        except (av.FFmpegError, ValueError, OSError, KeyError, MemoryError) as error:
            status, text = Status.REFUSED, first_line(error)
        if status is Status.REFUSED or request.operation is Operation.ALONE:
            decoders.pop(number, None)
        link.send(bytes((status,)) + text.encode(errors="replace")[:TEXT_BYTES])


def _warm_up() -> None:
    """Load all that is loaded on first use: later there are no files."""
    for codec in Codec:
        context = open_decoder(codec, 64, 64)
        place = np.empty(64 * 64 * 2, dtype=np.uint8)
        try:
            decode(context, bytes(16), 64, 64, place)
        except (av.FFmpegError, ValueError) as error:
            first_line(error)
    np.frombuffer(memoryview(av.VideoFrame(64, 64, "yuv420p").planes[0]), dtype=np.uint8).sum()
    json.dumps([])


def main() -> None:
    """Map the memory, give up rights, report, and serve."""
    link_number, memory_number, memory_bytes = (int(argument) for argument in sys.argv[1:4])
    link = socket.socket(fileno=link_number)
    memory = mmap.mmap(memory_number, 0)
    # A terminal and systemd signal it together with its processor, which still decodes while it drains.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    _warm_up()
    held = confine(memory_bytes)
    link.send(bytes((Status.READY,)) + json.dumps(held).encode())
    serve(link, memory)


if __name__ == "__main__":
    main()

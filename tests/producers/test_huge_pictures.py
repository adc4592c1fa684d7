"""Sources with pictures of too many pixels: rejected before they take memory."""

from __future__ import annotations

import io
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path

import av
import pytest
from PIL import Image

from producers.sources.opening import open_source
from producers.sources.settings import SourceSettings
from tests.producers.web_rig import web_server

SIDE = 12_000
READ = """
import re, sys
from pathlib import Path
from pydantic import SecretStr
from producers.sources.opening import open_source
from producers.sources.settings import SourceSettings
from schemas.errors import SourceError

kind, place = sys.argv[1:]
where = {"address": SecretStr(place)} if kind == "url" else {"file": place}
try:
    open_source(SourceSettings(kind=kind, size=(64, 64), **where)).read()
except SourceError as error:
    print(error.reason)
# Not ru_maxrss, which begins with the memory of the process that has forked this one.
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def write_huge_png(file: Path) -> None:
    """Write a black picture of 144 million pixels, which takes less than half a MiB."""
    packer = zlib.compressobj(9)
    rows = [packer.compress(bytes(1 + 3 * SIDE)) for _ in range(SIDE)]
    sides = SIDE.to_bytes(4, "big") * 2
    parts = (b"IHDR", sides + b"\x08\x02\0\0\0"), (b"IDAT", b"".join((*rows, packer.flush()))), (b"IEND", b"")
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")
            for name, data in parts
        )
    )


@pytest.mark.parametrize("kind", ["video", "url"])
def test_a_small_file_of_a_huge_picture_is_rejected_within_little_memory(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "huge.png"
    write_huge_png(file)
    with web_server(tmp_path) as address:
        place = f"{address}/{file.name}" if kind == "url" else str(file)
        ran = subprocess.run([sys.executable, "-c", READ, kind, place], capture_output=True, text=True, check=True)
    *reasons, peak_kib = ran.stdout.splitlines()
    assert int(peak_kib) < 250 * 1024  # the decoded picture alone takes 412 MiB, also while the source is probed
    assert len(reasons) == 1
    assert reasons[0].startswith("no frame of it decodes: expected at most 8192x8192 pixels")


def test_pictures_of_a_stream_that_become_huge_are_skipped(tmp_path: Path) -> None:
    file = tmp_path / "film.mkv"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuvj420p"
        for number, sides in enumerate(((32, 32), (9000, 8000), (32, 32))):
            picture = io.BytesIO()
            Image.new("L", sides).save(picture, "JPEG", quality=10)
            packet = av.Packet(picture.getvalue())
            packet.stream, packet.time_base = stream, Fraction(1)
            packet.pts = packet.dts = number
            container.mux(packet)
    source = open_source(SourceSettings(kind="video", file=file, size=(64, 64)))
    positions = [found.position for found in iter(source.read, None)]
    source.close()
    assert positions == [0, 1]

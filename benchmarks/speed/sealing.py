"""The cost of sealing a frame compared with the former tag alone: `python -m benchmarks.speed.sealing`.

All methods process the same bytes in turn, in one thread of one process. Figures are medians of CPU time over
`--rounds` rounds, and the ratio of each to the tag alone. Sizes are the pixels of a 32×32 frame and of a 576×576 frame,
with a quarter dropped. `--folder` receives `sealing.json` and `README.md`.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.poly1305 import Poly1305

from benchmarks.harness.command_line import command_line
from schemas.identity import CameraId
from schemas.keys.keys import CameraKey
from schemas.keys.tags import TAG_FIELD, Purpose
from schemas.runtime.atomic_file import write_text
from schemas.runtime.json_files import write_json

SIZES: Final = {"32×32": 32 * 32 * 3 * 3 // 4, "576×576": 576 * 576 * 3 * 3 // 4}
HEAD: Final = bytes(range(25))
SECONDS: Final = 0.02
"""Seconds of each way in each round."""
BEFORE: Final = "BLAKE2b tag, unsealed (before)"

Way = Callable[[], object]


def ways(size: int) -> dict[str, Way]:
    """Return the measured ways for that many bytes of pixels."""
    secret = bytes(range(32))
    key, pixels = CameraKey(CameraId("bench/camera"), 0, secret, secret), os.urandom(size)
    nonce, counter = bytes(12), bytes(16)
    keyed = blake2b(key=secret, digest_size=8)
    gcm, chacha = AESGCM(secret), ChaCha20Poly1305(secret)
    message = key.seal_frame(1, 1, HEAD, pixels)

    def tag(*parts: bytes | memoryview) -> bytes:
        found = keyed.copy()
        for part in parts:
            found.update(part)
        return found.digest()

    def counted() -> bytes:
        return Cipher(algorithms.AES(secret), modes.CTR(counter)).encryptor().update(pixels)

    def sealed_then_blake2b() -> bytes:
        sealed = counted()
        return b"".join((HEAD, sealed, TAG_FIELD, tag(HEAD, sealed)))

    def sealed_then_poly1305() -> bytes:
        sealed = counted()
        return b"".join((HEAD, sealed, TAG_FIELD, tag(HEAD, Poly1305.generate_tag(secret, sealed))))

    def opened() -> memoryview:
        key.verify(Purpose.FRAME, message)
        return key.opened(1, 1, pixels)

    return {
        BEFORE: lambda: b"".join((HEAD, pixels, TAG_FIELD, tag(HEAD, pixels))),
        "at the camera: sealed and signed": lambda: key.seal_frame(1, 1, HEAD, pixels),
        "at the bridge: verified": lambda: key.verify(Purpose.FRAME, message),
        "at the processor: verified and opened": opened,
        "AES-256-CTR, then BLAKE2b": sealed_then_blake2b,
        "AES-256-CTR, then Poly1305 in BLAKE2b": sealed_then_poly1305,
        "AES-256-GCM whole, one key for all roles": lambda: gcm.encrypt(nonce, pixels, HEAD),
        "ChaCha20-Poly1305 whole, one key for all roles": lambda: chacha.encrypt(nonce, pixels, HEAD),
    }


def measure(size: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return the CPU microseconds of each way, and their ratio to the tag alone."""
    # Allocate this size once, as a camera has: the allocator then keeps such memory instead of requesting it from the
    # kernel.
    bytearray(2 * size)
    actions = ways(size)
    repeats = {name: max(1, int(SECONDS / _once_s(action, 3))) for name, action in actions.items()}
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            taken[name].append(_once_s(action, repeats[name]))
    return {
        name: {
            "us": round(1e6 * statistics.median(found), 2),
            "over_before": round(statistics.median(a / b for a, b in zip(found, taken[BEFORE], strict=True)), 3),
        }
        for name, found in taken.items()
    }


def _once_s(action: Way, repeats: int) -> float:
    before = time.thread_time_ns()
    for _ in range(repeats):
        action()
    return (time.thread_time_ns() - before) / 1e9 / repeats


def markdown(document: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    sizes = document["sizes"]
    lines = ["# What sealing costs", "", f"`{document['command']}`, {document['machine']}: CPU time a frame.", ""]
    lines.append("| way | " + " | ".join(f"{name}, {SIZES[name]:,} bytes | ÷ before" for name in sizes) + " |")
    lines.append("| --- |" + " ---: |" * 2 * len(sizes))
    for way in next(iter(sizes.values())):
        cells = (f"{found[way]['us']:.1f} µs | {found[way]['over_before']:.2f}" for found in sizes.values())
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    arguments = command_line(__doc__, folder=Path("docs/results/sealing"), rounds=41)
    document = {
        "command": arguments.command,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "sizes": {name: measure(size, arguments.rounds) for name, size in SIZES.items()},
    }
    arguments.folder.mkdir(parents=True, exist_ok=True)
    write_json(arguments.folder / "sealing.json", document)
    write_text(arguments.folder / "README.md", markdown(document))
    print(markdown(document))


if __name__ == "__main__":
    main()

"""Invalid options and files: each command of the lab rejects them in one line and writes nothing."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.lab.conftest import Command

FEW = ("--batch", 4, "--held-out", 4)
REFUSALS: dict[str, list[tuple[tuple[object, ...], str]]] = {
    "evaluate": [
        (("--drop-ratio", 0.9), "--drop-ratio: expected at most 0.875, got 0.9"),
        (("--mode", "best"), "--mode: expected default or paper, got 'best'"),
        (("--masks", "odd"), "--masks: expected spread or uniform, got 'odd'"),
        (("--attack", "storm"), "attack: expected one of fgsm"),
        (("--attack", "pgd", "--eps", -1), "eps: expected a positive number, got -1.0"),
        (("--attack", "pgd", "--eps", 0.0019), "--eps: expected at least 1/510 (0.00197), got 0.0019"),
        (("--attack", "jsma", "--eps", 0.0019, "--data", "nothing.npz"), "nothing.npz: expected a readable file"),
        (("--eps", 0.1), "--attack is missing"),
        (("--attack", "deepfool"), "untargeted"),
        (("--device", "abacus"), "--device: expected auto or cpu or cuda"),
        (("--bundle", "nowhere"), "got 'nowhere'"),
        (("--data", "nothing.npz"), "nothing.npz: expected a readable file"),
        (("--json", "."), "--json: expected a writable file"),
        (("--json", "-"), "--json: expected a writable file, got -"),
    ],
    "red-team": [
        (("--defence", "wall"), "--defence: expected one of fleet, key-known, blind, stages, bare, bit-depth, jpeg"),
        (("--attacks", "storm"), "--attacks: expected some of gradients, eot-pgd"),
        (("--attacks", ""), "got none"),
        (("--out", "/dev/null/x"), "--out: expected a writable folder, got /dev/null/x"),
        (("--eps", "1e400"), "--eps: expected a number or a fraction such as 8/255, got '1e400'"),
        (("--eps", 1.5), "--eps: expected above 0 and at most 1 (frames are in [0, 1]), got 1.5"),
        (("--eps", "8/0"), "--eps: expected a number or a fraction such as 8/255, got '8/0'"),
        (("--budget", 0), "--budget: expected more than 0 minutes, got 0"),
        (("--surrogate", "cifar10"), "--surrogate: expected a network of 3 classes, got one of 10"),
    ],
    "harden": [
        (("--eps", 0), "eps: expected"),
        (("--held-out", 10), "at least one batch of 4 besides 10 held out, got 12"),
        (("--device", "abacus"), "auto or cpu or cuda"),
        (("--stickers", 0), "sticker: expected a side of at least 1 pixel, got 0"),
        (("--stickers", 2, "--trades", 1), "trades: expected none with a sticker"),
        (("--stickers", 999), "patch: expected at most"),
    ],
    "certify": [
        (("--patch", "0"), "--patch: expected SIDE or HEIGHTxWIDTH in pixels, got '0'"),
        (("--patch", "5x5x5"), "--patch: expected SIDE or HEIGHTxWIDTH in pixels, got '5x5x5'"),
        (("--patch", "999"), "patch: expected at most"),
        (("--patch", "2", "--fill", "sand"), "--fill: expected restorer or plate or grey, got 'sand'"),
        (("--patch", "2", "--backend", "abacus"), "--backend: expected torch or auto, got 'abacus'"),
    ],
    "psnr": [(("--images", "nowhere"), "pictures: expected a folder"), (("--backend", "abacus"), "abacus")],
    "learn-table": [
        (("--out", "."), "--out: expected a file"),
        (("--out", "pipe"), "pipe: expected a regular file"),
        (("--out", "-"), "-: expected the name of a file"),
        (("--attack", "x"), "attack:"),
    ],
    "evidence": [(("--allowed", "inf"), "--allowed: expected a finite number, got inf")],
    "aigan attack": [
        (("--dataset", "svhn"), "expected one of mnist, cifar10, scene, scene-hardened, got 'svhn'"),
        (("--eps", 2), "expected a bound above 0 and up to 1, got 2.0"),
        (("--generator", "nowhere"), "expected a generator's settings, cannot read"),
        (("--generator", "damaged"), "expected a generator's settings"),
    ],
    "aigan train": [
        (("--dataset", "mnist"), "POINTILLIST_DATA is missing: set it to a folder with mnist.npz"),
        (("--black-box",), "--black-box: expected one of mnist, cifar10, got scene"),
    ],
}


CASES = [
    pytest.param(command, options, complaint, id=" ".join(map(str, (command, *options))))
    for command, refused in REFUSALS.items()
    for options, complaint in refused
]


@pytest.mark.parametrize(("command", "options", "complaint"), CASES)
def test_an_invalid_option_is_rejected_in_one_line(
    lab: Command, bundle: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str,
    options: tuple[object, ...], complaint: str,
) -> None:  # fmt: skip
    monkeypatch.delenv("POINTILLIST_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "damaged" / "generator.toml").write_text("name = 3\n")
    out = tmp_path / "out"
    standard: dict[str, tuple[object, ...]] = {
        "evaluate": ("--bundle", bundle, "--data", data, "--drop-ratio", 0.25, "--json", out),
        "red-team": ("--bundle", bundle, "--data", data),
        "harden": ("--bundle", bundle, "--data", data, "--out", out, *FEW),
        "certify": ("--bundle", bundle, "--data", data, "--json", out),
        "psnr": ("--images", ".", "--drop-ratio", 0.25, "--json", out),
        "learn-table": ("--bundle", bundle, "--data", data, "--attack", "fgsm", "--eps", 0.05, "--out", out),
        "evidence": ("--bundle", bundle, "--clean", data, "--poisoned", data, "--json", out),
        "aigan attack": ("--dataset", "scene", "--json", out),
        "aigan train": ("--dataset", "scene"),
    }
    assert complaint in lab(*command.split(), *standard[command], *options).refusal()
    assert not out.exists()


def with_images(file: Path, header: bytes) -> Path:
    """Write an npz whose images are this header and a few bytes."""
    with ZipFile(file, "w") as archive:
        archive.writestr("images.npy", header + bytes(100))
        archive.writestr("labels.npy", npy(np.zeros(4, np.int64)))
    return file


def npy(array: NDArray[Any]) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def larger_than_memory(file: Path) -> Path:
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        content, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 224, 224, 3)}
    )
    return with_images(file, content.getvalue())


def encrypted(file: Path) -> Path:
    content = bytearray(with_images(file, npy(np.zeros((4, 8, 8, 3), np.uint8))).read_bytes())
    content[content.find(b"PK\x01\x02") + 8] |= 1
    file.write_bytes(content)
    return file


def truncated(file: Path) -> Path:
    file.write_bytes(with_images(file, npy(np.zeros((4, 8, 8, 3), np.uint8))).read_bytes()[:-40])
    return file


def unclosed_header(file: Path) -> Path:
    return with_images(file, b"\x93NUMPY\x01\x00\x10\x00{'descr': ((((((")


AGAIN = "Correct the path, or copy or write the file again."


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (larger_than_memory, "expected arrays that fit into the memory, got larger ones: Unable to allocate 137. TiB"),
        (encrypted, "expected an npz of plain arrays, got a damaged file or another one (File 'images.npy' is encr"),
        (truncated, f"expected an npz of plain arrays (no pickles), got another format. {AGAIN}"),
        (unclosed_header, f"expected an npz of plain arrays, got a damaged file or another one. {AGAIN}"),
        (lambda file: with_images(file, b"hello"), "expected an npz of plain arrays"),
    ],
    ids=["memory", "encrypted", "truncated", "header", "no-array"],
)
@pytest.mark.parametrize("command", ["evaluate", "harden", "learn-table", "calibrate"])
def test_a_damaged_file_of_pictures_is_rejected_in_one_line_with_a_remedy(
    lab: Command, bundle: Path, tmp_path: Path, command: str, damage: Callable[[Path], Path], complaint: str
) -> None:
    file = damage(tmp_path / "damaged.npz")
    options: dict[str, tuple[object, ...]] = {
        "evaluate": ("--data", file, "--drop-ratio", 0.25, "--json", tmp_path / "out"),
        "harden": ("--data", file, "--out", tmp_path / "out"),
        "learn-table": ("--data", file, "--out", tmp_path / "out"),
        "calibrate": ("--clean", file),
    }
    error = lab(command, "--bundle", bundle, *options[command]).refusal()
    assert f"{file}: {complaint}" in error
    assert error.endswith(".")

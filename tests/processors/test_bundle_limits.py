"""Files of a bundle whose headers announce more than the limits are rejected before a library opens them."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from processors.bundle import limits, load_bundle, read_settings
from processors.bundle import load as bundle_load
from processors.bundle.limits import check_archive, check_npy, check_safetensors
from schemas.errors import BundleError
from tests.processors.tiny import use_format, write_bundle

CPU = torch.device("cpu")


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(begin: object, end: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [1], "data_offsets": [begin, end]}


BAD_HEADERS = {
    "shorter than its length field": (b"\1\0\0", "a header of at most"),
    "a header beyond the file": (safetensors({}, length=2**40), "announces 1099511627776"),
    "a header beyond its bound": (safetensors(b" " * 2**10, length=2**24 + 1), "a header of at most 16777216"),
    "no JSON": (safetensors(b"{"), "no JSON object"),
    "a list": (safetensors([]), "no JSON object"),
    "deeply nested": (safetensors(b"[" * 100_000), "no JSON object"),
    "a tensor beyond the file": (safetensors({"w": entry(0, 2**40)}, bytes(4)), "got 'w' elsewhere"),
    "a tensor before the file": (safetensors({"w": entry(-4, 0)}, bytes(4)), "got 'w' elsewhere"),
    "a tensor backwards": (safetensors({"w": entry(4, 0)}, bytes(4)), "got 'w' elsewhere"),
    "offsets that are no numbers": (safetensors({"w": entry("0", None)}, bytes(4)), "got 'w' elsewhere"),
    "an entry that is no object": (safetensors({"w": 7}), "got 'w' elsewhere"),
}


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_an_impossible_safetensors_header_is_rejected_before_the_file_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(bundle_load, "load_safetensors", None)
    content, message = BAD_HEADERS[name]
    folder = write_bundle(tmp_path)
    (folder / "weights.safetensors").write_bytes(content)
    with pytest.raises(BundleError, match=f"weights.safetensors: .*{message}"):
        load_bundle(folder, CPU)


def test_too_many_tensors_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_TENSORS", 3)
    file = tmp_path / "w.safetensors"
    save_file({str(i): torch.zeros(1) for i in range(3)}, file)
    check_safetensors(file)
    save_file({str(i): torch.zeros(1) for i in range(4)}, file)
    with pytest.raises(BundleError, match="at most 3 tensors, got 4"):
        check_safetensors(file)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=40)
@given(shapes=st.lists(st.lists(st.integers(0, 5), max_size=3), max_size=5), about=st.booleans())
def test_files_that_safetensors_writes_are_within_the_limits(
    tmp_path: Path, shapes: list[list[int]], about: bool
) -> None:
    file = tmp_path / "w.safetensors"
    save_file({str(i): torch.zeros(shape) for i, shape in enumerate(shapes)}, file, {"about": "x"} if about else None)
    check_safetensors(file)


def archive(*members: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as opened:
        for name, content in members:
            opened.writestr(name, content)
    return buffer.getvalue()


def scripted_bundle(folder: Path, content: bytes) -> Path:
    made = write_bundle(folder)
    use_format(made, "torchscript", "network.pt")
    (made / "network.pt").write_bytes(content)
    return made


def test_a_torchscript_archive_that_unpacks_to_far_more_bytes_is_rejected_unopened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_load, "load_torchscript", None)
    folder = scripted_bundle(tmp_path, archive(("network/data.pkl", bytes(64 * 2**20))))
    with pytest.raises(BundleError, match=r"network\.pt: expected to unpack to at most 32 times .*, got 67108864"):
        load_bundle(folder, CPU)


def test_a_torchscript_archive_with_too_many_or_duplicate_members_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_MEMBERS", 3)
    file = tmp_path / "network.pt"
    file.write_bytes(archive(*((str(i), b"") for i in range(4))))
    with pytest.raises(BundleError, match="at most 3 members, got 4"):
        check_archive(file)
    with pytest.warns(UserWarning, match="Duplicate name"):
        file.write_bytes(archive(("a", b"1"), ("a", b"2")))
    with pytest.raises(BundleError, match="distinct names"):
        check_archive(file)
    file.write_bytes(b"no archive")
    with pytest.raises(BundleError, match="expected a TorchScript file"):
        check_archive(file)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_files_that_torch_writes_are_within_the_limits(tmp_path: Path) -> None:
    for width in (1, 300):
        module = nn.Sequential(nn.Linear(3, width), nn.Linear(width, 3))
        torch.jit.save(torch.jit.script(module), tmp_path / "network.pt")
        check_archive(tmp_path / "network.pt")


def test_an_array_whose_header_announces_another_size_is_rejected_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_bundle(tmp_path)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (2**40, 32, 32, 3)})
    (folder / "overlays.npy").write_bytes(header.getvalue() + bytes(3072))
    monkeypatch.setattr(np, "load", None)
    with pytest.raises(BundleError, match=r"overlays\.npy: expected the 3377699720527872 bytes .*, got 3072"):
        load_bundle(folder, CPU)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=40)
@given(shape=st.lists(st.integers(0, 4), max_size=4), kind=st.sampled_from(["u1", "<f4", ">i8", "<U5", "O"]))
def test_files_that_numpy_writes_are_within_the_limits(tmp_path: Path, shape: list[int], kind: str) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape, kind))
    check_npy(tmp_path / "a.npy")


def test_files_and_settings_above_their_size_limits_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_bundle(tmp_path)
    with (folder / "weights.safetensors").open("r+b") as weights:
        weights.truncate(2 * 2**30 + 1)  # a sparse file, which needs no space on the disk
    with pytest.raises(BundleError, match=r"weights\.safetensors: expected at most 2147483648 bytes, got 2147483649"):
        load_bundle(folder, CPU)
    use_format(folder, "onnx", "weights.safetensors")
    monkeypatch.setattr(bundle_load, "load_onnx", None)
    with pytest.raises(BundleError, match="expected at most 2147483648 bytes"):
        load_bundle(folder, CPU)
    with (folder / "model.toml").open("r+b") as table:
        table.truncate(2**20 + 1)
    with pytest.raises(BundleError, match=r"model\.toml: expected at most 1048576 bytes"):
        read_settings(folder)


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_the_size_that_a_header_of_either_version_announces_is_checked(
    tmp_path: Path, version: tuple[int, int]
) -> None:
    file = tmp_path / "pictures.npy"
    with file.open("wb") as opened:
        np.lib.format.write_array(opened, np.zeros((2, 3), np.float32), version=version)
    check_npy(file)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"^pictures\.npy: expected the 24 bytes of float32 \(2, 3\), got 23\."):
        check_npy(file)


def test_arrays_of_an_unknown_version_or_type_are_left_to_their_loader(tmp_path: Path) -> None:
    file = tmp_path / "pictures.npy"
    with file.open("wb") as opened:
        np.lib.format.write_array(opened, np.zeros((2, 3), np.float32), version=(3, 0))
    check_npy(file)
    np.save(file, np.array([{}]), allow_pickle=True)
    check_npy(file)

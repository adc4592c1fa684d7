"""External data of ONNX graphs: weight files next to the graph are embedded, and any other file is rejected."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from infra.bundling.external_data import _announced, take_in
from infra.bundling.onnx_graph import read_graph
from schemas.errors import BundleError
from tests.infra.own_networks import write_onnx

SECRET = b"-----BEGIN OPENSSH PRIVATE KEY-----\n"


def write_graph(folder: Path, **entries: str) -> Path:
    """Write a graph whose first weight (3, 3) refers to external data by these entries."""
    model = onnx.load(write_onnx(folder / "network.onnx"))
    refer_to(model.graph.initializer[0], **entries)
    (folder / "network.onnx").write_bytes(model.SerializeToString())
    return folder / "network.onnx"


def refer_to(tensor: TensorProto, **entries: str) -> None:
    """Make a tensor refer to external data in place of its own."""
    tensor.ClearField("raw_data")
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        (".ssh/id_ed25519", "expected the name of a file next to the graph"),
        ("sub/w.bin", "expected the name of a file next to the graph"),
        ("../w.bin", "expected the name of a file next to the graph"),
        ("*/_ORT_MEM_ADDR_/*", "expected the name of a file next to the graph"),
        ("", "expected the name of a file next to the graph"),
        (".hidden.bin", "expected a file that is not hidden"),
        ("fleet.secret", r"expected a file named \*\.data, \*\.bin"),
        ("signer.key", r"expected a file named \*\.data, \*\.bin"),
        ("linked.bin", "expected a plain file"),
        ("pipe.bin", "expected a plain file"),
        ("folder.bin", "expected a plain file"),
        ("absent.bin", r"'absent\.bin' is missing"),
    ],
)
def test_a_graph_may_refer_only_to_weight_files_next_to_it(tmp_path: Path, location: str, expected: str) -> None:
    for name in (".ssh/id_ed25519", "sub/w.bin", ".hidden.bin", "fleet.secret", "signer.key"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(SECRET)
    (tmp_path / "linked.bin").symlink_to("signer.key")
    (tmp_path / "folder.bin").mkdir()
    os.mkfifo(tmp_path / "pipe.bin")
    with pytest.raises(BundleError, match=expected) as caught:
        read_graph(write_graph(tmp_path, location=location), None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({"length": "35"}, "expected the 36 bytes of its shape and type, got length 35"),
        ({"offset": "5"}, "expected 36 bytes from byte 5 on, got a file of 40"),
        ({"offset": "-1"}, "expected offset as a number of bytes, got '-1'"),
        ({"length": "9" * 5000}, "expected length as a number of bytes"),
    ],
)
def test_a_range_must_match_the_tensor_and_lie_inside_the_file(
    tmp_path: Path, entries: dict[str, str], expected: str
) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(40))
    with pytest.raises(BundleError, match=expected):
        read_graph(write_graph(tmp_path, location="w.bin", **entries), None)


def test_the_external_bytes_of_all_tensors_are_bounded(tmp_path: Path) -> None:
    model = onnx.load(write_onnx(tmp_path / "network.onnx"))
    for tensor in model.graph.initializer:
        refer_to(tensor, location="w.bin")
        tensor.dims[:] = [2**29]
    with pytest.raises(BundleError, match="expected at most 2147483648 bytes of external data, got 4294967296"):
        take_in(model, tmp_path / "network.onnx")


@pytest.mark.parametrize("name", ["network.onnx.data", "w.bin", "model.onnx_data"])
def test_weights_next_to_the_graph_are_embedded_and_noted(tmp_path: Path, name: str) -> None:
    plain = onnx.load(write_onnx(tmp_path / "plain.onnx"))
    onnx.save_model(plain, tmp_path / "network.onnx", save_as_external_data=True, location=name, size_threshold=0)
    graph = read_graph(tmp_path / "network.onnx", None)
    expected = {each.name: numpy_helper.to_array(each) for each in onnx.load(tmp_path / "plain.onnx").graph.initializer}
    for each in graph.model.graph.initializer:
        np.testing.assert_array_equal(numpy_helper.to_array(each), expected[each.name])
    assert f"its weights in {name} came into the bundle" in graph.notes


def test_tensors_inside_nodes_and_functions_are_embedded(tmp_path: Path) -> None:
    """Leave no reference in the graph, because a runtime would open the file itself."""
    (tmp_path / "w.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    values = [numpy_helper.from_array(np.zeros(4, np.float32), str(number)) for number in range(3)]
    for each in values:
        refer_to(each, location="w.bin")
    constants = [helper.make_node("Constant", [], [f"c{number}"], value=each) for number, each in enumerate(values)]
    inner = helper.make_graph(constants[:1], "inner", [], [])
    outer = helper.make_graph([helper.make_node("If", ["x"], ["y"], then_branch=inner)], "outer", [], [])
    functions = [helper.make_function("own", "f", [], ["c1"], constants[1:2], [helper.make_opsetid("", 17)])]
    model = helper.make_model(outer, functions=functions)
    model.graph.sparse_initializer.add().values.CopyFrom(values[2])
    assert take_in(model, tmp_path / "network.onnx") == ("w.bin",)
    assert b"w.bin" not in model.SerializeToString()
    assert model.SerializeToString().count(np.arange(4, dtype=np.float32).tobytes()) == 3


@pytest.mark.parametrize(
    ("kind", "sides", "expected"),
    [
        (TensorProto.STRING, [2], "expected a tensor of numbers, got type 8"),
        (TensorProto.UNDEFINED, [2], "expected a tensor of numbers, got type 0"),
        (TensorProto.FLOAT, [2, -1], r"expected sides of 0 or more, got \[2, -1\]"),
    ],
)
def test_a_tensor_of_unknown_size_is_rejected(kind: int, sides: list[int], expected: str) -> None:
    with pytest.raises(BundleError, match=f"^weights: {expected}"):
        _announced(TensorProto(data_type=kind, dims=sides), "weights")


@pytest.mark.parametrize(
    ("kind", "sides", "size"),
    [(TensorProto.FLOAT, [2, 3], 24), (TensorProto.INT4, [3], 2), (TensorProto.FLOAT, [0, 5], 0)],
)
def test_the_size_of_a_tensor_follows_from_its_shape_and_type(kind: int, sides: list[int], size: int) -> None:
    assert _announced(TensorProto(data_type=kind, dims=sides), "weights") == size

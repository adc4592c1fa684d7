"""The trial of an untrusted network in a child process, within limits of time and memory."""

from __future__ import annotations

import multiprocessing
import signal
from functools import partial
from multiprocessing.context import BaseContext
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from infra.bundling import trial
from infra.bundling.bundle_request import BundleRequest, Summary
from infra.bundling.presets import normalisation
from infra.bundling.trial import Limits, create_within
from schemas.errors import BundleError
from tests.infra.command_line import call
from tests.infra.own_networks import write_names, write_onnx

ENDLESS = 2**62


def write_costly(file: Path, nodes: list[onnx.NodeProto], *made: onnx.TensorProto) -> Path:
    """Write the classifier of colours with nodes whose output `cost` (1) is added to its means."""
    model = onnx.load(write_onnx(file))
    means, gemm = model.graph.node
    gemm.input[0] = "sum"
    del model.graph.node[:]
    model.graph.node.extend([means, *nodes, helper.make_node("Add", ["means", "cost"], ["sum"]), gemm])
    model.graph.initializer.extend(made)
    file.write_bytes(model.SerializeToString())
    return file


def write_endless(file: Path) -> Path:
    """Write a graph with a Loop that would take a century."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["still"]), helper.make_node("Identity", ["x"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [1]),
        ],
    )
    loop = helper.make_node("Loop", ["turns", "yes", "zero"], ["cost"], body=body)
    values = {"turns": np.int64(ENDLESS), "yes": np.bool_(True), "zero": np.zeros(1, np.float32)}
    return write_costly(
        file, [loop], *(numpy_helper.from_array(np.asarray(each), name) for name, each in values.items())
    )


def write_large(file: Path) -> Path:
    """Write a graph of a few hundred bytes whose working memory is 4 GiB."""
    nodes = [
        helper.make_node("ConstantOfShape", ["many"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["cost"], keepdims=1),
    ]
    # The size is computed at run time: a constant would be folded into the graph.
    nodes.insert(0, helper.make_node("Shape", ["frames"], ["shape"]))
    nodes.insert(1, helper.make_node("Gather", ["shape", "first"], ["batch"]))
    nodes.insert(2, helper.make_node("Mul", ["batch", "each"], ["many"]))
    made = [numpy_helper.from_array(np.array([0], np.int64), "first")]
    made.append(numpy_helper.from_array(np.array([2**30 // 3], np.int64), "each"))
    return write_costly(file, nodes, *made)


def run_trial(tmp_path: Path, network: Path, limits: Limits) -> Summary:
    """Run a trial of an ONNX file, without pictures."""
    request = BundleRequest(
        "onnx", str(network), write_names(tmp_path / "names.txt"),
        normalisation=partial(normalisation, "imagenet", None, None),
    )  # fmt: skip
    return create_within(limits, request, tmp_path / "out", lambda line: None, lambda name, why: None)


@pytest.fixture(scope="module")
def forks() -> BaseContext:
    """Return a context whose processes are forked from one that has loaded the libraries of a trial."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["infra.bundling.create"])
    return context


@pytest.fixture
def fast_children(forks: BaseContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: forks)


@pytest.mark.usefixtures("fast_children")
def test_a_network_that_never_answers_ends_at_the_time_limit(tmp_path: Path) -> None:
    network = write_endless(tmp_path / "loop.onnx")
    with pytest.raises(BundleError, match=r"a trial of at most 1 s, got a longer one\. .* --most-seconds"):
        run_trial(tmp_path, network, Limits(seconds=1))
    assert {each.name for each in tmp_path.iterdir()} == {"loop.onnx", "names.txt"}


@pytest.mark.usefixtures("fast_children")
def test_a_network_that_needs_too_much_memory_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        run_trial(tmp_path, write_large(tmp_path / "large.onnx"), Limits(memory_gib=1))
    assert "memory" in str(caught.value).lower()
    assert "\n" not in str(caught.value)
    assert {each.name for each in tmp_path.iterdir()} == {"large.onnx", "names.txt"}


def test_a_trial_killed_by_a_signal_is_one_error_line() -> None:
    line = trial._ended(-signal.SIGKILL, Limits(), "large.onnx")
    assert line.startswith("large.onnx: expected a trial within 8 GiB, got one killed by SIGKILL. ")
    assert (
        trial._ended(1, Limits(), "odd.onnx")
        == "odd.onnx: expected a trial with status 0, got 1. Choose another network."
    )


def test_the_command_passes_its_limits_to_the_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[Limits] = []

    def reject(limits: Limits, *_: object) -> Summary:
        passed.append(limits)
        raise BundleError("rejected")

    monkeypatch.setattr(trial, "create_within", reject)
    arguments = ["bundle", "create", "--onnx", "any.onnx", "--out", str(tmp_path / "out")]
    for options in ([], ["--most-seconds", "5", "--most-memory", "2"]):
        with pytest.raises(BundleError, match="rejected"):
            call(*arguments, *options)
    assert passed == [Limits(600, 8), Limits(5, 2)]

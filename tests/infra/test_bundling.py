"""Bundles made from users' networks, and the errors and doubts about their descriptions."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from infra.bundling import create as create_module
from infra.bundling.bundle_request import BundleRequest, Origin
from infra.bundling.class_names import distinct, read_class_names
from infra.bundling.create import BundleSummary, create, scale_of
from infra.bundling.gallery import picture_files, round_robin
from infra.bundling.label_checks import chance_doubt, order_doubt, place_of_each, regrouped, share
from infra.bundling.networks import of_torchvision
from infra.bundling.presets import PRESETS, Normalisation, normalisation
from infra.bundling.strip_table import (
    LEAST_OVERLAYS,
    LEAST_PICTURES,
    MOST_OVERLAYS,
    MOST_PICTURES,
    calibrate_strip,
    shares,
)
from infra.bundling.tflite_file import without_signatures
from lab.data import LabelledPictures
from lab.repair.inputs import trainable_copy
from processors.bundle import Bundle, load_bundle
from processors.device.backends.choose import BackendRequest
from processors.device.backends.engines import engines
from schemas.errors import BundleError, ConfigError
from tests.infra.own_networks import (
    SIDE,
    Colours,
    append_onnx,
    picture,
    write_names,
    write_onnx,
    write_pictures,
    write_tflite,
)

CPU = torch.device("cpu")


def make_bundle(
    tmp_path: Path, network: Path, preset: str = "imagenet", out: str = "out", origin: Origin = "onnx", **changes: Any
) -> BundleSummary:
    """Create a bundle of `network` without STRIP, from pictures with classes."""
    names = write_names(tmp_path / "names.txt")
    pictures = tmp_path / "pictures"
    if not pictures.exists():
        write_pictures(pictures)
    options: dict[str, Any] = {"classes": names, "calibrate": pictures, "strip_s": 0.0} | changes
    request = BundleRequest(origin, str(network), normalisation=lambda known: PRESETS[preset], **options)
    return create(request, tmp_path / out)


def accuracy(folder: Path) -> float:
    """Return the share of pictures whose colour the bundle in `folder` recognises."""
    bundle = load_bundle(folder, CPU)
    pictures = np.stack([picture(number, seed) for number in range(3) for seed in range(8)])
    frames = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    found = bundle.logits(bundle.prepare(frames)).argmax(1)
    return float((found == torch.arange(3).repeat_interleave(8)).float().mean())


@pytest.mark.parametrize(
    ("export", "message"),
    [
        ({}, None),
        ({"batch": 1}, "exported for 1 picture at a time: the graph now takes any number"),
        ({"batch": 4, "flatten": "written"}, "exported for 4 pictures at a time: the graph now takes any number"),
        ({"batch": 4, "flatten": "worked out"}, "takes 4 pictures at a time and no other number"),
        ({"last": True}, "channels last"),
        ({"softmax": True}, "ends in a softmax"),
        ({"features_first": True}, "of its 2 outputs, logits gives the classes"),
        ({"batch": -1}, None),
    ],
)
def test_an_exported_onnx_classifier_becomes_a_correct_bundle(
    tmp_path: Path, export: dict[str, Any], message: str | None
) -> None:
    network = write_onnx(tmp_path / "network.onnx", **export)
    found = make_bundle(tmp_path, network)
    assert found.doubts == ()
    assert accuracy(tmp_path / "out") == 1
    notes = "\n".join(found.notes)
    assert "repair, harden and attacks that follow gradients" in notes
    assert message is None or message in notes
    assert ("at a time" in notes) is ("batch" in export and export["batch"] != -1)


def test_an_output_with_more_axes_of_one_element_is_flattened(tmp_path: Path) -> None:
    network = append_onnx(
        write_onnx(tmp_path / "network.onnx", batch=1),
        [helper.make_node("Unsqueeze", ["logits", "axes"], ["map"])],
        {"map": (TensorProto.FLOAT, [1, 3, 1, 1])},
        numpy_helper.from_array(np.array([2, 3], np.int64), "axes"),
    )
    found = make_bundle(tmp_path, network)
    assert accuracy(tmp_path / "out") == 1
    assert "its output is (?, 3, 1, 1): the graph now flattens it" in found.notes


@pytest.mark.parametrize("ends", ["logits", "shares", "map"])
def test_a_quantised_output_is_left_unquantised(tmp_path: Path, ends: str) -> None:
    network = write_onnx(tmp_path / "network.onnx", batch=1, softmax=ends == "shares")
    nodes = [helper.make_node("QuantizeLinear", [ends, "scale", "zero"], ["levels"])]
    if ends == "map":
        nodes.insert(0, helper.make_node("Unsqueeze", ["logits", "axes"], ["map"]))
    kind = np.uint8 if ends == "shares" else np.int8
    append_onnx(
        network,
        nodes,
        {"levels": (helper.np_dtype_to_tensor_dtype(np.dtype(kind)), [1, 3, 1, 1] if ends == "map" else [1, 3])},
        numpy_helper.from_array(np.array(1 / 256 if ends == "shares" else 0.05, np.float32), "scale"),
        numpy_helper.from_array(np.array(0 if ends == "shares" else -5, kind), "zero"),
        numpy_helper.from_array(np.array([2, 3], np.int64), "axes"),
    )
    found = make_bundle(tmp_path, network)
    assert found.bundle.settings.output == ("probabilities" if ends == "shares" else "logits")
    assert f"its output is quantised to {np.dtype(kind)}: the graph now leaves it unquantised" in found.notes
    assert accuracy(tmp_path / "out") == 1
    make_bundle(tmp_path, write_onnx(tmp_path / "float.onnx"), out="float")
    exact = load_bundle(tmp_path / "float", CPU)
    frames = torch.rand(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    for backend in ("auto", "openvino"):
        pipeline, _ = engines(load_bundle(tmp_path / "out", CPU), BackendRequest(backend, "float32"), "plate")
        shares = pipeline.bundle.logits(frames).softmax(1)
        torch.testing.assert_close(shares, exact.logits(frames).softmax(1), rtol=0, atol=1e-4)


def test_an_output_of_8_bits_without_a_scale_is_one_error_line(tmp_path: Path) -> None:
    network = append_onnx(
        write_onnx(tmp_path / "network.onnx"),
        [helper.make_node("Cast", ["logits"], ["levels"], to=TensorProto.UINT8)],
        {"levels": (TensorProto.UINT8, ["batch", 3])},
    )
    with pytest.raises(BundleError, match=r"^network\.onnx: .* got 8-bit integers in levels of Cast\. Export"):
        make_bundle(tmp_path, network)


def test_the_output_with_one_column_for_each_name_gives_the_classes(tmp_path: Path) -> None:
    network = append_onnx(
        write_onnx(tmp_path / "network.onnx"),
        [
            helper.make_node("TopK", ["logits", "k"], ["best", "numbers"]),
            helper.make_node("Concat", ["means", "means"], ["features"], axis=1),
        ],
        {
            "numbers": (TensorProto.INT64, ["batch", 3]),
            "features": (TensorProto.FLOAT, ["batch", 6]),
            "logits": (TensorProto.FLOAT, ["batch", 3]),
        },
        numpy_helper.from_array(np.array([3], np.int64), "k"),
    )
    found = make_bundle(tmp_path, network)
    assert accuracy(tmp_path / "out") == 1
    assert "of its 3 outputs, logits gives the classes" in found.notes
    with pytest.raises(BundleError, match=r"expected an output of 2 columns, .*, got features of 6, logits of 3\."):
        make_bundle(tmp_path, network, out="other", classes=write_names(tmp_path / "two.txt", ("a", "b")))


def test_a_network_in_float16_is_served_by_the_backends_of_a_cpu(tmp_path: Path) -> None:
    make_bundle(tmp_path, write_onnx(tmp_path / "network.onnx", half=True))
    bundle = load_bundle(tmp_path / "out", CPU)
    frames = torch.rand(5, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    for backend in ("auto", "openvino"):
        pipeline, chosen = engines(bundle, BackendRequest(backend, "float32"), "plate")
        torch.testing.assert_close(pipeline.bundle.logits(frames), bundle.logits(frames), rtol=0.02, atol=0.05)
    assert str(chosen.classifier) == "openvino float32"


def test_a_graph_that_rejects_the_picture_size_is_one_error_line(tmp_path: Path) -> None:
    network = append_onnx(
        write_onnx(tmp_path / "network.onnx", sides=("h", "w")),
        [helper.make_node("Reshape", ["frames", "to"], ["flat"])],
        {"flat": (TensorProto.FLOAT, ["batch", 3 * SIDE**2])},
        numpy_helper.from_array(np.array([-1, 3 * SIDE**2], np.int64), "to"),
    )
    with pytest.raises(BundleError, match=r"expected a graph that accepts \(3, 3, 8, 8\), got .* Correct --size, or"):
        make_bundle(tmp_path, network, size=(8, 8))


def test_an_old_graph_whose_reshape_has_its_shape_as_an_attribute_becomes_a_bundle(tmp_path: Path) -> None:
    frames = helper.make_tensor_value_info("frames", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    nodes = [
        helper.make_node("GlobalAveragePool", ["frames"], ["means"]),
        helper.make_node("Reshape", ["means"], ["logits"], shape=[1, 3]),
    ]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3])
    graph = helper.make_graph(nodes, "old", [frames], [logits])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 4)], ir_version=3), tmp_path / "old.onnx")
    notes = "\n".join(make_bundle(tmp_path, tmp_path / "old.onnx", calibrate=None).notes)
    assert "it takes 1 picture at a time and no other number" in notes


def network_of(outputs: torch.Tensor) -> Bundle:
    """Return a bundle whose network returns these outputs."""
    bundle = SimpleNamespace(
        settings=SimpleNamespace(input=SimpleNamespace(channels=3, height=4, width=4)),
        normalised=lambda pictures: pictures,
        network=lambda pictures: outputs,
    )
    return cast(Bundle, bundle)


def test_a_network_that_ends_in_sigmoids_is_reported(tmp_path: Path) -> None:
    network = append_onnx(
        write_onnx(tmp_path / "network.onnx"),
        [helper.make_node("Sigmoid", ["logits"], ["scores"])],
        {"scores": (TensorProto.FLOAT, ["batch", 3])},
    )
    found = make_bundle(tmp_path, network)
    assert found.bundle.settings.output == "logits"
    assert any(note.startswith("the network seems to end in sigmoids") for note in found.notes)


@pytest.mark.parametrize(
    ("outputs", "scale"),
    [
        (lambda logits: logits, "logits"),
        (lambda logits: logits.softmax(1), "probabilities"),
        # Sums of 100 rounded shares are off by up to .2.
        (lambda logits: (256 * logits.softmax(1)).round() / 256, "probabilities"),
        (lambda logits: logits.sigmoid(), "sigmoids"),
        (lambda logits: (256 * logits.sigmoid()).round() / 256, "sigmoids"),
        (lambda logits: (logits > 1).float(), "sigmoids"),
        (lambda logits: torch.full_like(logits, 0.5), "sigmoids"),
    ],
)
def test_the_scale_of_outputs_is_detected_even_if_they_are_rounded(
    outputs: Callable[[torch.Tensor], torch.Tensor], scale: str
) -> None:
    logits = torch.randn(8, 100, generator=torch.Generator().manual_seed(0))
    assert scale_of(network_of(outputs(logits))) == scale


def test_a_network_whose_outputs_are_not_finite_is_rejected() -> None:
    with pytest.raises(BundleError, match="the network: expected finite outputs for pictures of noise, got NaN"):
        scale_of(network_of(torch.full((8, 3), torch.nan)))


def test_a_graph_for_one_picture_that_would_mix_a_batch_keeps_its_batch_size(
    tmp_path: Path,
) -> None:
    network = write_onnx(tmp_path / "network.onnx", batch=1, sides=(64, 64))
    nodes = [
        helper.make_node("ReduceMax", ["frames"], ["brightest"], keepdims=0),
        helper.make_node("Div", ["logits", "brightest"], ["relative"]),
    ]
    append_onnx(network, nodes, {"relative": (TensorProto.FLOAT, [1, 3])})
    notes = "\n".join(make_bundle(tmp_path, network).notes)
    assert "it takes 1 picture at a time and no other number" in notes


def write_mixing_onnx(file: Path, batch: int | str) -> Path:
    """Write a network whose logits are divided by the brightest value of the batch."""
    nodes = [
        helper.make_node("ReduceMax", ["frames"], ["brightest"], keepdims=0),
        helper.make_node("Div", ["logits", "brightest"], ["relative"]),
    ]
    return append_onnx(write_onnx(file, batch=batch), nodes, {"relative": (TensorProto.FLOAT, [batch, 3])})


def test_an_onnx_graph_of_any_batch_that_mixes_its_pictures_takes_one_at_a_time(tmp_path: Path) -> None:
    found = make_bundle(tmp_path, write_mixing_onnx(tmp_path / "network.onnx", "batch"))
    assert "its results change with the other pictures of a batch: it now takes 1 picture at a time" in found.notes[0]
    bundle = load_bundle(tmp_path / "out", CPU)
    frames = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [0.1, 0.5, 1.0]
    ).view(3, 1, 1, 1)
    torch.testing.assert_close(bundle.logits(frames), torch.cat([bundle.logits(each[None]) for each in frames]))


def test_an_onnx_graph_of_a_larger_fixed_batch_that_mixes_its_pictures_is_rejected(tmp_path: Path) -> None:
    network = write_mixing_onnx(tmp_path / "own.onnx", 4)
    with pytest.raises(BundleError, match=r"^own\.onnx: expected a network that judges each picture by itself"):
        make_bundle(tmp_path, network)


@pytest.mark.parametrize("flatten", [False, True])
@pytest.mark.parametrize("signature", [None, (-1,)])
def test_a_tensorflow_lite_classifier_becomes_a_correct_bundle_that_cannot_be_trained(
    tmp_path: Path, flatten: bool, signature: tuple[int, ...] | None
) -> None:
    network = write_tflite(tmp_path / "network.tflite", flatten=flatten, signature=signature)
    found = make_bundle(tmp_path, network, origin="tflite")
    assert found.doubts == ()
    assert accuracy(tmp_path / "out") == 1
    notes = "\n".join(found.notes)
    assert ("one picture at a time and no other number" in notes) is flatten
    bundle = load_bundle(tmp_path / "out", CPU)
    pipeline, chosen = engines(bundle, BackendRequest())
    frames = torch.rand(5, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    # The runtime chooses its precision: bfloat16 on CPUs that have it.
    torch.testing.assert_close(pipeline.bundle.logits(frames), bundle.logits(frames), rtol=0.02, atol=0.05)
    assert chosen.classifier.backend == "openvino"
    with pytest.raises(BundleError, match=r"expected a trainable network .* got the format tflite"):
        trainable_copy(bundle)


def test_a_tensorflow_lite_classifier_that_mixes_the_pictures_of_a_batch_is_rejected(tmp_path: Path) -> None:
    network = write_tflite(tmp_path / "own.tflite", relative=True)
    with pytest.raises(BundleError, match=r"^own\.tflite: expected a network that judges each picture by itself"):
        make_bundle(tmp_path, network, origin="tflite")


def test_only_shape_signatures_are_removed_from_a_tensorflow_lite_file(tmp_path: Path) -> None:
    plain = write_tflite(tmp_path / "plain.tflite").read_bytes()
    signed = write_tflite(tmp_path / "signed.tflite", signature=(-1,)).read_bytes()
    bare = without_signatures(signed)
    assert without_signatures(plain) == plain
    assert 0 < sum(before != after for before, after in zip(signed, bare, strict=True)) <= 8
    assert without_signatures(bare) == bare
    draws = np.random.default_rng(0)
    for length in range(0, len(signed), 7):
        damaged = bytearray(signed)
        damaged[int(draws.integers(len(signed)))] = int(draws.integers(256))
        assert len(without_signatures(bytes(damaged))) == len(signed)
        assert len(without_signatures(signed[:length])) == length


def test_a_tensorflow_lite_file_with_another_size_is_rejected(tmp_path: Path) -> None:
    network = write_tflite(tmp_path / "own.tflite", signature=(-1, -1, -1))
    with pytest.raises(BundleError, match=r"^own\.tflite: expected one input \(1, H, W, 1 or 3\) .*\?,\?,\?,3"):
        make_bundle(tmp_path, network, origin="tflite")
    network = write_tflite(tmp_path / "own.tflite")
    with pytest.raises(BundleError, match=r"^--size: expected 16x16, the input of own\.tflite, got 24x12\."):
        make_bundle(tmp_path, network, origin="tflite", size=(12, 24))


@pytest.mark.parametrize(
    ("channels", "message"),
    [(2, r"expected one input \(1, H, W, 1 or 3\)"), (0, "TensorFlow Lite file"), (None, "got an empty file")],
)
def test_an_unusable_tensorflow_lite_file_is_one_error_line_and_leaves_no_files(
    tmp_path: Path, channels: int | None, message: str
) -> None:
    network = tmp_path / "network.tflite"
    if channels:
        write_tflite(network, channels=channels)
    else:
        network.write_bytes(b"" if channels is None else b"no graph")
    with pytest.raises(BundleError, match=message) as caught:
        make_bundle(tmp_path, network, origin="tflite")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("export", "message"),
    [
        ({"kind": TensorProto.UINT8}, "expected an input of float32 or float16 pictures, got frames of uint8"),
        (
            {"kind": TensorProto.FLOAT16},
            r"network\.onnx: expected an ONNX graph that onnxruntime runs, got .* Export it with an older opset\.",
        ),
        ({"sides": (2**40, 2**40)}, f"expected pictures of at most 4096x4096, got {2**40}x{2**40}"),
        ({"channels": 4}, r"expected an input of 1 or 3 channels, got frames \(\?, 4, 16, 16\)"),
        ({"sides": ("h", "w")}, "--size is missing: network.onnx accepts pictures of any size"),
    ],
)
def test_an_unusable_onnx_graph_is_one_error_line_and_leaves_no_files(
    tmp_path: Path, export: dict[str, Any], message: str
) -> None:
    network = write_onnx(tmp_path / "network.onnx", **export)
    with pytest.raises(BundleError, match=message):
        make_bundle(tmp_path, network)
    (tmp_path / "network.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"network\.onnx: expected an ONNX graph"):
        make_bundle(tmp_path, network)
    assert {each.name for each in tmp_path.iterdir()} == {"network.onnx", "names.txt", "pictures"}


def test_a_variable_picture_size_is_fixed_by_the_size_option(tmp_path: Path) -> None:
    network = write_onnx(tmp_path / "network.onnx", sides=("h", "w"))
    stated = make_bundle(tmp_path, network, size=(12, 20)).bundle.settings.input
    assert (stated.height, stated.width) == (12, 20)


@pytest.mark.parametrize("preset", ["half", "unit"])
def test_a_wrong_normalisation_is_reported_with_the_right_one(tmp_path: Path, preset: str) -> None:
    found = make_bundle(tmp_path, write_onnx(tmp_path / "network.onnx"), preset)
    (doubt,) = found.doubts
    assert "normalisation looks wrong" in doubt
    assert "--preset imagenet?" in doubt


def test_a_wrong_order_of_classes_is_reported_with_the_confused_names(tmp_path: Path) -> None:
    (doubt,) = make_bundle(tmp_path, write_onnx(tmp_path / "turned.onnx", order=(1, 2, 0))).doubts
    assert "order of the classes looks wrong: 0% of 48" in doubt
    assert "red comes out as blue" in doubt
    # Output 0 is blue, 1 green, 2 red: the alphabet.
    network = write_onnx(tmp_path / "alphabet.onnx", order=(2, 1, 0))
    (doubt,) = make_bundle(tmp_path, network, out="other").doubts
    assert "100% with the names in alphabetical order" in doubt


def test_a_grey_network_and_pictures_without_classes_are_noted(tmp_path: Path) -> None:
    network = write_onnx(tmp_path / "network.onnx", channels=1)
    names = write_names(tmp_path / "two.txt", ("bright", "dark"))
    flat = write_pictures(tmp_path / "flat", each=4, named=False)
    found = make_bundle(tmp_path, network, classes=names, calibrate=flat)
    notes = "\n".join(found.notes)
    assert "the network takes grey pictures" in notes
    assert "the pictures have no classes" in notes
    assert f"no frame is checked for triggers; expected at least {LEAST_PICTURES}" in notes
    assert "no [strip] table" in "\n".join(make_bundle(tmp_path, network, out="b", classes=names, calibrate=None).notes)


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    seed=st.integers(0, 99),
    turned=st.permutations(range(5)),
)
@settings(deadline=None, max_examples=60)
def test_correct_or_random_verdicts_raise_no_doubt_about_the_order_of_classes(
    labels: list[int], seed: int, turned: list[int]
) -> None:
    truth = np.array(labels)
    names = [f"c{number}" for number in range(5)]
    assert order_doubt(truth, truth, names, share(truth, truth)) == []
    chance = np.random.default_rng(seed).integers(0, 5, len(truth))
    assert regrouped(chance, truth).low <= 0.6
    # If every class has enough pictures, any order is undone.
    every = np.repeat(np.arange(5), 4)
    assert regrouped(np.array(turned)[every], every).value == 1
    assert place_of_each(np.array(turned)[every], every) == dict(enumerate(turned))


@pytest.mark.parametrize(
    ("sizes", "right", "doubted"),
    [
        ((30, 30), (15, 15), True),
        ((30, 30), (30, 0), True),
        ((50, 10), (50, 0), True),
        ((50, 10), (50, 9), False),
        ((58, 2), (57, 2), False),
        ((30, 30), (24, 23), False),
        ((60, 0), (57, 0), False),
        ((10, 10), (5, 5), False),
        ((60, 0), (15, 0), True),
    ],
)
def test_a_network_at_chance_or_with_one_verdict_for_all_is_doubted(
    sizes: tuple[int, int], right: tuple[int, int], doubted: bool
) -> None:
    labels = np.repeat([0, 1], sizes)
    found = 1 - labels
    found[: right[0]] = 0
    found[sizes[0] : sizes[0] + right[1]] = 1
    doubts = chance_doubt(found, labels, ["go", "stop"], share(found, labels))
    assert ["no more than by chance or by one class for all" in each for each in doubts] == [True] * doubted


def test_a_bundle_whose_network_names_one_class_for_all_pictures_is_doubted(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures", each=8)
    for number in range(48):
        Image.fromarray(picture(0, 1000 + number)).save(pictures / "red" / f"more-{number}.png")
    network = append_onnx(
        write_onnx(tmp_path / "network.onnx"),
        [helper.make_node("Mul", ["logits", "none"], ["zero"]), helper.make_node("Add", ["zero", "red"], ["all"])],
        {"all": (TensorProto.FLOAT, ["batch", 3])},
        numpy_helper.from_array(np.array(0, np.float32), "none"),
        numpy_helper.from_array(np.array([9, 0, 0], np.float32), "red"),
    )
    (doubt,) = make_bundle(tmp_path, network).doubts
    assert doubt.startswith("78% of 72 pictures are right, no more than by chance or by one class for all")


@given(pictures=st.integers(LEAST_PICTURES, 5000), passes=st.floats(0, 1e7))
def test_overlays_and_pictures_of_strip_stay_within_the_number_of_forward_passes(pictures: int, passes: float) -> None:
    overlays, used = shares(pictures, passes)
    assert LEAST_OVERLAYS <= overlays <= min(MOST_OVERLAYS, pictures // 2)
    assert 2 * overlays <= used <= min(pictures, MOST_PICTURES)
    assert overlays * used <= max(passes, 2 * overlays**2)


def test_copies_of_a_picture_are_not_used_for_calibration(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "unnamed", each=1, named=False)
    for number in range(LEAST_PICTURES):
        shutil.copy(pictures / "red-0.png", pictures / f"z{number:02}.png")
    skipped: list[tuple[str, str]] = []
    request = BundleRequest(
        "onnx", str(write_onnx(tmp_path / "network.onnx")), write_names(tmp_path / "names.txt"), pictures,
        lambda known: PRESETS["imagenet"],
    )  # fmt: skip
    found = create(request, tmp_path / "out", skipped=lambda *each: skipped.append(each))
    assert found.bundle.settings.strip is None
    assert any(note.endswith("and a drift reference, got 3") for note in found.notes)
    assert len(skipped) == LEAST_PICTURES
    assert skipped[0] == ("z00.png", "to the network it is a copy of red-0.png")


def test_strip_is_calibrated_from_pictures_without_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.strip.limits.DRAWS", 50)  # the full number takes seconds
    found = make_bundle(tmp_path, write_onnx(tmp_path / "network.onnx"))
    images = np.stack([picture(n % 3, n, (SIDE, SIDE)) for n in range(LEAST_PICTURES)])
    gallery = LabelledPictures("own", images, np.full(len(images), -1))
    strip, used = calibrate_strip(tmp_path / "out", found.bundle, gallery, budget_s=0.01)
    assert used == LEAST_PICTURES
    bundle = load_bundle(tmp_path / "out", CPU)
    assert bundle.settings.strip == strip
    assert strip.frr == pytest.approx(1 / (LEAST_PICTURES - LEAST_OVERLAYS), abs=1e-3)
    assert bundle.overlays is not None
    colours = bundle.logits(bundle.overlays).argmax(1).bincount(minlength=3)
    assert colours.max() - colours.min() <= 1


def test_pictures_come_from_every_class_and_folder_names_may_differ_in_case_and_punctuation(tmp_path: Path) -> None:
    for folder in ("No-Entry", "go"):
        (tmp_path / folder).mkdir()
        for number in range(4):
            (tmp_path / folder / f"{number}.png").touch()
    (tmp_path / "go" / ".thumbnails").mkdir()
    (tmp_path / "go" / ".thumbnails" / "0.png").touch()
    assert len(picture_files(tmp_path, ["go", "no entry"], 100)) == 8
    found = picture_files(tmp_path, ["go", "no entry"], 5)
    assert sorted(found.labels.tolist()) == [0, 0, 1, 1, 1]
    with pytest.raises(ConfigError, match=r"expected sub-folders named by class \(go, stop\), got No-Entry/"):
        picture_files(tmp_path, ["go", "stop"], 5)
    (tmp_path / "stray.png").touch()
    with pytest.raises(ConfigError, match=r"got both \(stray\.png, No-Entry/\)"):
        picture_files(tmp_path, ["go", "no entry"], 5)
    with pytest.raises(ConfigError, match="pictures: expected a folder"):
        picture_files(tmp_path / "stray.png", ["go", "no entry"], 5)


def test_pictures_are_spread_over_the_files_of_each_class_and_over_too_many_classes(tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(10)]
    for name in names:
        (tmp_path / name).mkdir()
        for hour in range(24):
            (tmp_path / name / f"{hour:02}.png").touch()
    found = picture_files(tmp_path, names, 40)
    for number in range(10):
        own = [file.stem for file, label in zip(found.files, found.labels, strict=True) if label == number]
        assert own == ["03", "09", "15", "21"]
    assert found.labels[:10].tolist() == list(range(10))
    assert picture_files(tmp_path, names, 3).labels.tolist() == [1, 5, 8]
    groups = np.repeat([0, 1], [100, 3])
    assert round_robin(groups, 7).tolist() == [12, 100, 37, 101, 62, 102, 87]


@pytest.mark.parametrize(
    "text",
    [
        "tench\ncrane\ncrane\n\n",
        '["tench", "crane", "crane"]',
        '{"1": "crane", "0": "tench", "2": "crane"}',
        '{"0": ["n01440764", "tench"], "1": ["n02012849", "crane"], "2": ["n03126707", "crane"]}',
    ],
)
def test_class_names_are_read_from_common_formats_and_made_distinct(tmp_path: Path, text: str) -> None:
    file = tmp_path / "names"
    file.write_text(text)
    assert read_class_names(file) == ["tench", "crane", "crane"]
    assert distinct(read_class_names(file)) == (["tench", "crane (1)", "crane (2)"], ["crane"])


def test_a_first_name_in_brackets_is_a_name(tmp_path: Path) -> None:
    file = tmp_path / "names"
    file.write_text("[background]\ncat\n")
    assert read_class_names(file) == ["[background]", "cat"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "one",
        "cat\nunsure",
        "cat\n\x1b[2Jdog",
        '[\n"a",\n"b",\n]',
        "a\n\nb",
        '{"0": "a", "2": "b"}',
        '{"x": "a"}',
        "[1, 2]",
        '["a", ',
        "[[], []]",
    ],
)
def test_invalid_class_names_are_one_error_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "names"
    file.write_text(text)
    with pytest.raises(ConfigError, match="--classes: "):
        read_class_names(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_class_names(file)


def test_a_normalisation_comes_from_a_preset_from_options_or_from_the_network() -> None:
    known = Normalisation((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    assert normalisation(None, None, None, known) == known
    assert normalisation("half", None, None, known) == PRESETS["half"]
    assert normalisation(None, "0.5", "0.25", None).of(3) == Normalisation((0.5,) * 3, (0.25,) * 3)
    assert PRESETS["half"].of(1) == Normalisation((0.5,), (0.5,))
    assert PRESETS["bytes"].of(1) == Normalisation((0.0,), (1 / 255,))
    with pytest.raises(ConfigError, match=r"^--mean: expected numbers .*, got 123\.675\. Divide --mean"):
        normalisation(None, "123.675,116.28,103.53", "58.4,57.1,57.4", None)
    for mean_0, std_255 in (("0", "255"), ("0.5,0.5,0.5", "0.2,0.2,127")):
        with pytest.raises(ConfigError, match=r"^--std: expected numbers on the scale 0 to 1, got \d+\. Divide --mean"):
            normalisation(None, mean_0, std_255, None)
    assert normalisation(None, "0", "1", None) == Normalisation((0.0,), (1.0,))
    none = (None, None, None)
    for preset, mean, std in (none, ("vgg", None, None), (None, "0.5", None), (None, "1,2", "1,2"), (None, "0", "0")):
        with pytest.raises(ConfigError):
            normalisation(preset, mean, std, None)


def test_one_name_for_each_output_and_an_empty_folder_are_required(tmp_path: Path) -> None:
    network = write_onnx(tmp_path / "network.onnx")
    with pytest.raises(ConfigError, match="expected 3 names, as many as the network has outputs, got 2"):
        make_bundle(tmp_path, network, classes=write_names(tmp_path / "two.txt", ("a", "b")), calibrate=None)
    make_bundle(tmp_path, network, calibrate=None)
    with pytest.raises(ConfigError, match="--out: expected a folder that is empty or does not exist yet"):
        make_bundle(tmp_path, network, calibrate=None)


def test_torchscript_runs_only_if_code_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "network.pt"
    with pytest.warns(DeprecationWarning, match=r"torch\.jit"):
        torch.jit.save(torch.jit.script(Colours().eval()), file)
    names = write_names(tmp_path / "names.txt")
    request = BundleRequest(
        "torchscript", str(file), names, normalisation=lambda known: PRESETS["imagenet"], size=(SIDE, SIDE)
    )  # fmt: skip
    monkeypatch.setenv("POINTILLIST_ALLOW_CODE", "0")
    with pytest.raises(BundleError, match=r"TorchScript network\.pt: expected permission .*give --allow-code"):
        create(request, tmp_path / "out")
    monkeypatch.setenv("POINTILLIST_ALLOW_CODE", "1")
    create(request, tmp_path / "out")
    assert accuracy(tmp_path / "out") == 1


class StandardisedByBatch(torch.nn.Module):
    """A network in training mode: it standardises pictures by the batch."""

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return ((frames - frames.mean()) / frames.std()).mean((2, 3))


class ForTwo(torch.nn.Module):
    """A network whose code names the batch of its export."""

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return frames.mean((2, 3)).view(2, 3)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (StandardisedByBatch(), r"judges each picture by itself, .* evaluation mode"),
        (ForTwo(), r"shape '\[2, 3\]' is invalid.*for any number of pictures"),
    ],
    ids=["mixes pictures", "one batch size"],
)
def test_a_torchscript_network_that_does_not_accept_every_batch_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: torch.nn.Module, message: str
) -> None:
    monkeypatch.setenv("POINTILLIST_ALLOW_CODE", "1")
    with pytest.warns(DeprecationWarning, match=r"torch\.jit"):
        torch.jit.save(torch.jit.script(network), tmp_path / "own.pt")
    with pytest.raises(BundleError, match=rf"^own\.pt: .*{message}"):
        make_bundle(tmp_path, tmp_path / "own.pt", origin="torchscript", size=(SIDE, SIDE))


def test_a_state_dict_in_place_of_a_torchscript_file_is_named_in_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POINTILLIST_ALLOW_CODE", "1")
    torch.save(Colours().state_dict(), tmp_path / "network.pt")
    request = BundleRequest(
        "torchscript", str(tmp_path / "network.pt"), write_names(tmp_path / "names.txt"), size=(SIDE, SIDE)
    )
    with pytest.raises(BundleError, match=r"network\.pt: expected a TorchScript file, .* such as a state dict\."):
        create(request, tmp_path / "out")


@pytest.mark.parametrize(("channels", "half", "cause"), [(1, False, "mat1 and mat2"), (3, True, "(?i)half")])
def test_a_torchscript_file_that_does_not_run_is_one_error_line_with_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int, half: bool, cause: str
) -> None:
    monkeypatch.setenv("POINTILLIST_ALLOW_CODE", "1")
    network = Colours().half() if half else Colours()
    with pytest.warns(DeprecationWarning, match=r"torch\.jit"):
        torch.jit.save(torch.jit.script(network.eval()), tmp_path / "network.pt")
    request = BundleRequest(
        "torchscript", str(tmp_path / "network.pt"), write_names(tmp_path / "names.txt"), size=(SIDE, SIDE),
        channels=channels,
    )  # fmt: skip
    with pytest.raises(BundleError, match=rf"expected a network that accepts \(2, {channels}, 16, 16\)") as caught:
        create(request, tmp_path / "out")
    assert re.search(cause, str(caught.value))
    assert "\n" not in str(caught.value)


def test_a_torchvision_network_with_the_weights_of_a_state_dict_is_served_without_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POINTILLIST_ALLOW_CODE", "0")
    monkeypatch.setenv("POINTILLIST_FACTORIES", "")
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    network = squeezenet1_1(weights=None, num_classes=3).eval()
    torch.save({"state_dict": network.state_dict()}, tmp_path / "own.pth")
    names = write_names(tmp_path / "names.txt")
    request = BundleRequest(
        "torchvision", "squeezenet1_1", names, normalisation=lambda known: PRESETS["imagenet"],
        weights=str(tmp_path / "own.pth"), size=(32, 32),
    )  # fmt: skip
    create(request, tmp_path / "out")
    bundle = load_bundle(tmp_path / "out", CPU)
    frames = torch.rand(2, 3, 32, 32)
    expected = network((frames - bundle.mean) / bundle.std).detach()
    np.testing.assert_allclose(bundle.logits(frames).numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)
    assert json.dumps(bundle.settings.factory_arguments) == '{"name": "squeezenet1_1", "classes": 3}'


def test_weights_of_a_library_come_from_the_cache_and_define_classes_and_normalisation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

    weights = SqueezeNet1_1_Weights.DEFAULT
    cached = tmp_path / "hub" / "checkpoints" / weights.url.rpartition("/")[2]
    cached.parent.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(squeezenet1_1(weights=None).state_dict(), cached)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    stated = create(BundleRequest("torchvision", "squeezenet1_1"), tmp_path / "out").bundle.settings
    assert (stated.input.height, stated.input.mean) == (224, [0.485, 0.456, 0.406])
    assert stated.classes[:2] == ["tench", "goldfish"]
    assert len(stated.classes) == 1000


@pytest.mark.parametrize(
    ("name", "weights", "classes", "message"),
    [
        ("resnet_18", "random", 3, "network: expected one of torchvision, such as resnet18"),
        ("resnet18", "random", None, "--classes is missing"),
        ("resnet18", "/nowhere.pth", 3, "--weights: expected default, random, or an existing file"),
        ("squeezenet1_1", "other.pth", 3, "expected the state dict of squeezenet1_1"),
        ("squeezenet1_1", "pickle.pth", 3, "got a pickle that calls pathlib"),
        ("squeezenet1_1", "code.pth", 3, r"a pickle that calls posix\.system\. Save network\.state_dict\(\)"),
        ("squeezenet1_1", "plain.pkl", 3, "got another pickle"),
        ("squeezenet1_1", "bomb.pth", 3, r"bomb\.pth: expected to unpack to at most 32 times its \d+ bytes"),
        ("squeezenet1_1", "half.pth", 3, r"half\.pth: expected a file of torch\.save"),
    ],
)
def test_an_unusable_torchvision_network_or_weights_file_is_one_error_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, weights: str, classes: int | None, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": torch.zeros(3)}, "other.pth")
    torch.save([Path()], "pickle.pth")
    torch.save({"weight": RunsOnUnpickling()}, "code.pth")
    Path("plain.pkl").write_bytes(pickle.dumps({"weight": RunsOnUnpickling()}))
    torch.save({"weight": torch.zeros(2**20)}, "zeros.pth")
    with zipfile.ZipFile("zeros.pth") as stored, zipfile.ZipFile("bomb.pth", "w", zipfile.ZIP_DEFLATED) as deflated:
        for member in stored.infolist():
            deflated.writestr(member.filename, stored.read(member))
    Path("half.pth").write_bytes(Path("other.pth").read_bytes()[:300])
    with pytest.raises((BundleError, ConfigError), match=message) as caught:
        of_torchvision(name, weights, tmp_path, None, classes)
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert not Path("ran").exists()


class RunsOnUnpickling:
    """An object whose pickle calls a program."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch ran",)


def test_a_missing_library_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # the import system's mark of a missing module
    command = r"in a checkout, `uv pip install --python \.venv/bin/python timm`"
    with pytest.raises(BundleError, match=rf"timm is missing: .*`pip install timm`; {command}"):
        create(BundleRequest("timm", "resnet18", write_names(tmp_path / "names.txt")), tmp_path / "out")


def test_loading_a_bundle_requests_no_weights_from_timm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[dict[str, Any]] = []

    def create_model(name: str, pretrained: bool, num_classes: int = 3, in_chans: int = 3) -> Colours:
        calls.append({"name": name, "pretrained": pretrained, "num_classes": num_classes, "in_chans": in_chans})
        network = Colours()
        network.pretrained_cfg = {
            "input_size": (3, SIDE, SIDE),
            "mean": PRESETS["imagenet"].mean,
            "std": PRESETS["imagenet"].std,
        }  # type: ignore[assignment]
        network.num_classes = 3  # type: ignore[assignment]
        return network

    stand_in = ModuleType("timm")
    vars(stand_in).update(create_model=create_model, list_models=lambda: ["colours"])
    monkeypatch.setitem(sys.modules, "timm", stand_in)
    create(BundleRequest("timm", "colours", write_names(tmp_path / "names.txt")), tmp_path / "out")
    assert accuracy(tmp_path / "out") == 1
    assert [each["pretrained"] for each in calls].count(True) == 1
    calls.clear()
    load_bundle(tmp_path / "out", CPU)
    assert calls == [{"name": "colours", "pretrained": False, "num_classes": 3, "in_chans": 3}]


@pytest.mark.parametrize("text", ["a", "1,x,3", "1,2", ""])
def test_a_normalisation_of_other_text_than_numbers_is_one_error_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--mean: expected one number, or three with commas between them, got '"):
        normalisation(None, text, "1", None)


def test_a_calibration_notes_its_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = make_bundle(tmp_path, write_onnx(tmp_path / "network.onnx"))
    assert (found.summary.model_id, found.summary.strip) == (found.bundle.model_id, None)
    assert (found.summary.channels, found.summary.classes, found.summary.doubts) == (3, 3, ())
    pictures = tmp_path / "unnamed"
    pictures.mkdir()
    for number in range(LEAST_PICTURES):
        Image.fromarray(picture(number % 3, number, (SIDE, SIDE))).save(pictures / f"{number}.png")
    blind = SimpleNamespace(threshold_bits=0.0, frr=0.5)
    monkeypatch.setattr(create_module, "calibrate_strip", lambda *_: (blind, 7))
    lines: list[str] = []
    calibrated = create_module.calibrate(
        tmp_path / "out", found.bundle, pictures, 1.0, lines.append, lambda *_: None, origin="ONNX"
    )
    assert lines == [f"reading {LEAST_PICTURES} pictures", "calibrating STRIP"]
    notes = "\n".join(calibrated.notes)
    for words in ("have no classes", "STRIP's threshold is next to nothing", "calibrated from few pictures"):
        assert words in notes
    assert calibrated.summary.strip == (
        "suspect below 0.000 bits, 50.0% of clean frames or less, by 7 pictures under 0 overlays"
    )

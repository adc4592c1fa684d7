"""Sources of a user's network, with one function for each: an ONNX or TorchScript file, torchvision, timm.

Each writes the weights into the bundle's folder and returns the description for `model.toml`.
"""

from __future__ import annotations

import pickle
import re
import shutil
import socket
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from infra.bundling.batches import example_pictures, judges_singly
from infra.bundling.onnx_graph import check_stated, fix_batch, read_graph, save_graph
from infra.bundling.presets import PRESETS, Normalisation
from infra.bundling.tflite_file import without_signatures
from lab.training.bundle import Format, input_settings, save_network
from processors.bundle.code import check_code
from processors.bundle.formats import load_onnx, load_torchscript
from processors.bundle.limits import check_archive, check_safetensors, check_size
from processors.bundle.model_toml import BundleSettings, Policy
from processors.bundle.tflite import load_tflite
from processors.device.memory import lacks_memory
from processors.networks.library import library, timm_network, torchvision_network
from schemas.errors import BundleError, ConfigError, first_line

WEIGHTS: Final = "weights.safetensors"
OWN_WEIGHTS: Final = "default"
"""The library's own weights for the network, from its cache or by its own download."""
RANDOM: Final = "random"
_NO_GRADIENTS: Final = (
    "repair, harden and attacks that follow gradients need a torch network and do not apply to {}; STRIP, calibrate, "
    "evaluate and attacks without gradients do"
)
_SILENT_S: Final = 20.0
_HEADED: Final = ("googlenet", "inception_v3")
"""The networks of torchvision with auxiliary heads, which act in training only: bundles leave them out."""
_HEADS: Final = ("aux1", "aux2", "AuxLogits")
_USUAL_SIDE: Final = 224
"""torchvision's default side of a vision transformer's pictures."""
_CALLED: Final = re.compile(r"GLOBAL (\S+)")
"""The name that torch quotes when it rejects a pickle; torch itself advises to run the code."""


@dataclass(frozen=True)
class Network:
    """The written network and its known properties."""

    format: Format
    weights: str
    channels: int
    height: int
    width: int
    classes: int
    origin: str
    factory: str | None = None
    factory_arguments: Mapping[str, Any] = field(default_factory=dict)
    normalisation: Normalisation | None = None
    """The normalisation, if the weights name it."""
    class_names: tuple[str, ...] = ()
    """The names of the classes, if the weights name them."""
    unsure_below: float = 0.0
    temperature: float = 1.0
    groups: Mapping[str, list[int]] = field(default_factory=dict)
    """The outputs of each group of classes."""
    policy: Policy = "resize"
    notes: tuple[str, ...] = ()


def of_onnx(file: Path, folder: Path, size: tuple[int, int] | None, classes: int | None) -> Network:
    """Write an ONNX classifier; see `infra.bundling.onnx_graph`. Raises BundleError.

    A graph that accepts any number of pictures, but whose results change with the other pictures, gets a batch of one.
    """
    graph, copy = read_graph(file, size, classes), folder / "network.onnx"
    save_graph(graph, copy)
    notes = (*graph.notes, _NO_GRADIENTS.format("an ONNX graph"))
    network = load_onnx(copy, torch.device("cpu"))
    if _mixes(network, graph.channels, graph.height, graph.width):
        if network.batch is not None:
            raise _mixing_error(file)
        fix_batch(graph.model)
        save_graph(graph, copy)
        notes = (
            "its results change with the other pictures of a batch: it now takes 1 picture at a time. If it was "
            "exported in training mode, its verdicts are wrong: call network.eval() and export it again",
            *notes,
        )
    return Network("onnx", copy.name, graph.channels, graph.height, graph.width, graph.classes, "ONNX", notes=notes)


def of_tflite(file: Path, folder: Path, size: tuple[int, int] | None) -> Network:
    """Write a TensorFlow Lite classifier; see `processors.bundle.tflite`. Raises BundleError.

    The copy has no shape signatures; see `infra.bundling.tflite_file`.
    """
    if not file.is_file():
        raise BundleError(f"--tflite: expected an existing file, got {file}. Correct the path.")
    if not check_size(file):
        raise BundleError(f"{file.name}: expected a TensorFlow Lite file, got an empty file. Export the network again.")
    copy = folder / "network.tflite"
    copy.write_bytes(without_signatures(file.read_bytes()))
    try:
        network = load_tflite(copy)
    except BundleError as error:
        raise BundleError(str(error).replace(copy.name, file.name, 1)) from None
    channels, height, width = network.shape
    check_stated(size, (height, width), file)
    classes = _outputs(network(torch.zeros(2, channels, height, width)), file.name)
    notes: tuple[str, ...] = (_NO_GRADIENTS.format("a TensorFlow Lite graph"),)
    if _mixes(network, channels, height, width):
        raise _mixing_error(file)
    if network.batch is not None:
        notes = (*notes, "the graph takes one picture at a time and no other number: batches run one by one")
    return Network("tflite", copy.name, channels, height, width, classes, "TensorFlow Lite", notes=notes)


def of_torchscript(file: Path, folder: Path, size: tuple[int, int] | None, channels: int) -> Network:
    """Write a TorchScript classifier of pictures of `size`. It is code: raises BundleError unless code was allowed."""
    if not file.is_file():
        raise BundleError(f"--torchscript: expected an existing file, got {file}. Correct the path.")
    if size is None:
        raise ConfigError(
            "--size is missing: a TorchScript file does not contain the size of its input. Give --size "
            "WIDTHxHEIGHT of the training pictures."
        )
    height, width = size
    stated = input_settings([0.0] * channels, [1.0] * channels, size)
    described = BundleSettings(
        name="network", version="1", format="torchscript", weights=file.name, classes=["a", "b"], input=stated
    )
    check_code(described, file.parent, vouched=False)
    check_archive(file)
    with zipfile.ZipFile(file) as archive:
        if not any(name.endswith("/constants.pkl") for name in archive.namelist()):
            raise BundleError(
                f"{file.name}: expected a TorchScript file, got another archive, such as a state dict. Save "
                "torch.jit.script(network.eval()) by torch.jit.save."
            )
    network = load_torchscript(file, torch.device("cpu"))
    pictures = torch.zeros(2, channels, height, width)
    try:
        result: object = network(pictures) if callable(network) else None
        classes = _outputs(result, file.name)
        mixes = _mixes(network, channels, height, width)
    except BundleError:
        raise
    except Exception as error:  # a user's code may raise anything
        if lacks_memory(error):
            raise
        # The interpreter's own lines come first, and the cause last.
        cause = ([line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__])[-1]
        raise BundleError(
            f"{file.name}: expected a network that accepts {tuple(pictures.shape)} float32, got {cause}. Correct "
            "--size or --channels, or save the network with weights of float32, for any number of pictures."
        ) from None
    if mixes:
        raise _mixing_error(file)
    shutil.copyfile(file, folder / "network.pt")
    return Network("torchscript", "network.pt", channels, height, width, classes, "TorchScript")


@torch.inference_mode()
def _mixes(network: Callable[[Tensor], Tensor], channels: int, height: int, width: int) -> bool:
    """Return whether the results for a picture change with the other pictures of its batch."""
    pictures = example_pictures(channels, height, width)
    return not judges_singly(network, lambda many: torch.cat([network(each[None]) for each in many]), pictures)


def _mixing_error(file: Path) -> BundleError:
    return BundleError(
        f"{file.name}: expected a network that judges each picture by itself, got one whose results change with the "
        "other pictures of a batch. Export it in evaluation mode, and without a normalisation over the whole input."
    )


def of_torchvision(name: str, weights: str, folder: Path, size: tuple[int, int] | None, classes: int | None) -> Network:
    """Write a network of torchvision with its default weights, a state dict's, or random ones. Raises BundleError."""
    models = library("torchvision").models
    if weights != OWN_WEIGHTS:
        return _of_library(name, weights, folder, size, classes, "torchvision", WeightProperties(height=224, width=224))
    arguments = _torchvision_arguments(name)
    torchvision_network(name, 2, **arguments)  # a wrong name is reported before anything is fetched
    chosen = models.get_model_weights(name).DEFAULT
    try:
        with _patience():
            network = models.get_model(name, weights=chosen)
    except OSError as error:
        raise BundleError(
            f"torchvision: expected the weights of {name}, got {first_line(error)}. Correct the name, or give "
            "--weights FILE."
        ) from None
    transforms, names = chosen.transforms(), tuple(chosen.meta.get("categories", ()))
    side = int(transforms.crop_size[0])
    known = WeightProperties(side, side, Normalisation(tuple(transforms.mean), tuple(transforms.std)), names)
    if getattr(network, "transform_input", False):
        # The network converts ImageNet's normalisation to this one; the factory's network does not.
        known = replace(known, normalisation=PRESETS["half"])
    if (image_size := getattr(network, "image_size", _USUAL_SIDE)) != _USUAL_SIDE:
        arguments["image_size"] = image_size
    return _written(network, name, len(names), folder, size, "torchvision", known, arguments)


def _torchvision_arguments(name: str) -> dict[str, Any]:
    """Return further arguments of the factory `torchvision_network` for this network."""
    return {"aux_logits": False} if name in _HEADED else {}


def of_timm(name: str, weights: str, folder: Path, size: tuple[int, int] | None, classes: int | None) -> Network:
    """Write a network of timm with its pretrained weights, a state dict's, or random ones. Raises BundleError."""
    timm = library("timm")
    kept: dict[str, Any] = vars(timm_network(name, 2))["pretrained_cfg"]
    _, height, width = kept["input_size"]
    known = WeightProperties(height, width, Normalisation(tuple(kept["mean"]), tuple(kept["std"])))
    if weights != OWN_WEIGHTS:
        return _of_library(name, weights, folder, size, classes, "timm", known)
    try:
        with _patience():
            network = timm.create_model(name, pretrained=True)
    except Exception as error:  # whatever the hub's client raises
        raise BundleError(
            f"timm: expected the weights of {name}, got {first_line(error)}. Correct the name, or give --weights FILE."
        ) from None
    return _written(network, name, int(network.num_classes), folder, size, "timm", known, {})


@contextmanager
def _patience() -> Iterator[None]:
    """Bound downloads by libraries, which set no timeout: a server that is silent for `_SILENT_S` has failed."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SILENT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@dataclass(frozen=True)
class WeightProperties:
    """The properties of a network's weights, from their library."""

    height: int
    width: int
    normalisation: Normalisation | None = None
    class_names: tuple[str, ...] = ()


def _of_library(
    name: str,
    weights: str,
    folder: Path,
    size: tuple[int, int] | None,
    classes: int | None,
    package: str,
    known: WeightProperties,
) -> Network:
    if classes is None:
        raise ConfigError(
            "--classes is missing: the number of classes is the size of the network's last layer. Give --classes FILE."
        )
    arguments = _torchvision_arguments(name) if package == "torchvision" else {}
    make = torchvision_network if package == "torchvision" else timm_network
    network = make(name, classes, **arguments)
    if weights != RANDOM:
        _load_state(network, Path(weights), name, _HEADS if arguments else ())
    written = _written(network, name, classes, folder, size, package, known, arguments)
    if weights == RANDOM:
        return _noted(written, "the weights are random: every verdict is a guess")
    if hasattr(network, "transform_input") and package == "torchvision":
        return _noted(
            written,
            "weights that were fine-tuned from torchvision's own need --preset half: torchvision's network converts "
            "its input to that, if transform_input is set, and the bundle's does not",
        )
    return written


def _written(
    network: nn.Module,
    name: str,
    classes: int,
    folder: Path,
    size: tuple[int, int] | None,
    package: str,
    known: WeightProperties,
    arguments: Mapping[str, Any],
) -> Network:
    """Write the weights; `arguments` are further ones of the factory."""
    if arguments.get("aux_logits") is False:
        for head in _HEADS:
            setattr(network, head, None)
    save_network(network, folder / WEIGHTS, "safetensors")
    height, width = size or (known.height, known.width)
    return Network(
        "safetensors", WEIGHTS, 3, height, width, classes, f"{package} {name}",
        factory=f"processors.networks.library:{package}_network",
        factory_arguments={"name": name, "classes": classes, **arguments},
        normalisation=known.normalisation, class_names=known.class_names,
        notes=(f"it needs the package {package} wherever it is served",),
    )  # fmt: skip


def _noted(network: Network, note: str) -> Network:
    return replace(network, notes=(*network.notes, note))


def _load_state(network: nn.Module, file: Path, name: str, left_out: tuple[str, ...]) -> None:
    """Load a safetensors file, or a state dict that `torch.save` wrote, into a network. No pickled code.

    Tensors of the modules `left_out` are ignored.
    """
    if not file.is_file():
        raise BundleError(
            f"--weights: expected {OWN_WEIGHTS}, {RANDOM}, or an existing file, got {file}. Correct the path."
        )
    state = {key: each for key, each in read_state(file).items() if key.partition(".")[0] not in left_out}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]] or [first_line(error)]
        raise BundleError(
            f"--weights: expected the state dict of {name}, got {file.name}: {lines[0][:200]}. Choose the "
            "network that the weights belong to."
        ) from None


def read_state(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, or of a state dict that `torch.save` wrote. Raises BundleError."""
    check_size(file)
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        check_safetensors(file)
        try:
            state: object = load_file(file)
        except SafetensorError as error:
            raise BundleError(
                f"--weights: expected a safetensors file, got {file.name}: {first_line(error)}. Save the weights again."
            ) from None
    else:
        state = _unpickled(file)
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(each, Tensor) for each in state.values()):
        raise BundleError(
            f"--weights: expected a state dict, tensors by name, got another object in {file.name}. Save the "
            "network's state_dict()."
        )
    return state


def _unpickled(file: Path) -> object:
    """Return the content of a `torch.save` file, if that is tensors in plain containers. Raises BundleError."""
    if _is_archive(file):
        check_archive(file, "a file of torch.save")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch's advice about pickles, which are rejected anyway
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = _CALLED.search(str(error))
        got = f"a pickle that calls {named[1][:80]}" if named else "another pickle"
        raise BundleError(
            f"--weights: expected a state dict, tensors by name, in {file.name}, got {got}. Save "
            "network.state_dict() instead; no code of the file was run."
        ) from None
    except Exception as error:  # unpickling can fail in many ways
        raise BundleError(
            f"--weights: expected a state dict, got {file.name}: {first_line(error)}. Save the network's state_dict()."
        ) from None


def _is_archive(file: Path) -> bool:
    """Return whether torch reads a file as a zip archive; an older file is one pickle, followed by raw tensors."""
    with file.open("rb") as opened:
        return opened.read(2) == b"PK"


def _outputs(result: object, name: str) -> int:
    if not isinstance(result, Tensor) or result.ndim != 2 or len(result) != 2:
        got = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise BundleError(
            f"{name}: expected a classifier, whose output is (N, classes), got {got} for 2 pictures. Choose "
            "another network."
        )
    return int(result.shape[1])

"""One loader for each weight format of bundles: safetensors, TorchScript, ONNX.

A bundle's own code (its factory file, its TorchScript) runs here, after the check in `processors.bundle.code`. Pickles
are never read. A factory outside the bundle is called only in the packages that ship networks, and in those that
`FACTORIES` names.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from schemas.errors import BundleError, first_line

if TYPE_CHECKING:
    import onnxruntime

FACTORIES: Final = "POINTILLIST_FACTORIES"
"""Environment variable with further packages or modules whose factories bundles may call, separated by commas."""
_SHIPPED: Final = ("processors.networks", "lab.networks", "lab.backdoor.networks")

Network = Callable[[Tensor], Tensor]


def load_safetensors(
    weights: Path, factory: str, arguments: Mapping[str, Any], folder: Path, device: torch.device
) -> nn.Module:
    """Return the module that `factory(**arguments)` makes, with the weights of a safetensors file, in evaluation mode.

    `factory` is `file.py:function` with the file inside `folder`, or `package.module:function` in a package that ships
    networks or that `FACTORIES` allows. Raises BundleError if the factory is anything else, does not exist, fails or
    returns no module, or if the weights do not fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    function = _factory(factory, folder)
    try:
        network = function(**arguments)
    except Exception as error:  # a user's factory may raise anything
        raise BundleError(
            f"factory {factory}: expected a network for {dict(arguments)}, got {type(error).__name__}: "
            f"{first_line(error)}. Correct factory_arguments."
        ) from error
    if not isinstance(network, nn.Module):
        raise BundleError(
            f"factory {factory}: expected a torch.nn.Module, got {type(network).__name__}. Correct model.toml."
        )
    try:
        state = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise BundleError(
            f"{weights.name}: expected a safetensors file, got {first_line(error)}. Save the weights again."
        ) from error
    _check_fit(network.state_dict(), state, weights.name, factory)
    network.load_state_dict(state)
    return network.requires_grad_(False).eval().to(device)


def _check_fit(expected: Mapping[str, Tensor], got: Mapping[str, Tensor], name: str, factory: str) -> None:
    problems = [f"lacks {key}" for key in expected if key not in got]
    problems += [f"has {key} which the network lacks" for key in got if key not in expected]
    problems += [
        f"has {key} of shape {tuple(got[key].shape)} where {tuple(expected[key].shape)} is expected"
        for key in expected
        if key in got and got[key].shape != expected[key].shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise BundleError(
            f"{name}: expected the weights of {factory}, got others: {'; '.join(problems[:3])}{more}. Correct "
            "weights or factory in model.toml."
        )


def _factory(spec: str, folder: Path) -> Callable[..., object]:
    source, _, attribute = spec.partition(":")
    if not source or not attribute:
        raise BundleError(
            f"factory: expected package.module:function or file.py:function, got {spec!r}. Correct model.toml."
        )
    own = source.endswith(".py")
    allowed = _allowed()
    if not own and not _within(source, allowed):
        raise BundleError(
            f"factory {spec}: expected a module of {', '.join(_SHIPPED)}, a file of the bundle such as "
            f"network.py:{attribute}, or a package that --factories or {FACTORIES} names, got another. "
            "Correct factory in model.toml."
        )
    try:
        module = _module_of_file(folder, source) if own else importlib.import_module(source)
    except BundleError:
        raise
    except Exception as error:  # a module's own code may raise anything
        raise BundleError(
            f"factory {spec}: expected an importable module, got {type(error).__name__} from {source}: "
            f"{first_line(error)}. Correct factory in model.toml."
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise BundleError(
            f"factory {spec}: expected a function {attribute} in {source}, got none. Correct factory in model.toml."
        )
    if not own and not _within(str(getattr(function, "__module__", "")), allowed):
        raise BundleError(
            f"factory {spec}: expected a function of {source} itself, got one that it imports. Correct model.toml."
        )
    checked: Callable[..., object] = function
    return checked


def _allowed() -> tuple[str, ...]:
    named = (name.strip() for name in os.environ.get(FACTORIES, "").split(","))
    return (*_SHIPPED, *filter(None, named))


def _within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def _module_of_file(folder: Path, name: str) -> ModuleType:
    path = inside(folder, name, "factory")
    # Two bundles may both have a network.py: the module's name contains the folder.
    spec = importlib.util.spec_from_file_location(f"pointillist_bundle_{abs(hash(path))}_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise BundleError(f"factory: expected a Python file, got {name}. Correct model.toml.")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickling look up their module by name while it is executed.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def inside(folder: Path, name: str, field: str) -> Path:
    """Return the existing file `name` inside `folder`; BundleError if it is missing, hidden or outside."""
    if any(part.startswith(".") and part not in (".", "..") for part in Path(name).parts):
        raise BundleError(
            f"{field}: expected a file that is not hidden, got {name}. Rename it: hidden files are not published."
        )
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise BundleError(f"{field}: expected a file inside the bundle's folder, got {name}. Correct model.toml.")
    if not path.is_file():
        raise BundleError(f"{field}: expected a file of the bundle, got none named {name}. Copy it into {folder}.")
    return path


def load_torchscript(weights: Path, device: torch.device) -> Network:
    """Return the scripted or traced module of a TorchScript file, in evaluation mode. Raises BundleError."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.load` is", category=DeprecationWarning)
        try:
            module = torch.jit.load(weights, map_location=device)  # type: ignore[no-untyped-call]  # no annotations
        except (RuntimeError, ValueError, OSError) as error:
            raise BundleError(
                f"{weights.name}: expected a TorchScript file, got {first_line(error)}. Save the network again."
            ) from error
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    network: Network = module
    return network


class OnnxNetwork:
    """An ONNX graph that onnxruntime runs; see `load_onnx`."""

    def __init__(self, path: Path, session: onnxruntime.InferenceSession) -> None:
        """`session` runs the graph in `path`."""
        self.path = path
        """Path of the graph, for another runtime."""
        self._session = session
        taken = session.get_inputs()[0]
        self._name = taken.name
        self._kind = np.float16 if taken.type == "tensor(float16)" else np.float32
        batch = taken.shape[0] if taken.shape else None
        self.batch: int | None = batch if isinstance(batch, int) else None
        """Fixed batch size of the graph; None accepts any number of pictures."""
        self._output = session.get_outputs()[0].name

    def __call__(self, frames: Tensor) -> Tensor:
        """Return the first output, float32, on the device of `frames`."""
        array = frames.detach().cpu().numpy().astype(self._kind, copy=False)
        if self.batch is not None and len(array) != self.batch:
            margins = [(0, -len(array) % self.batch)] + [(0, 0)] * (array.ndim - 1)
            chunks = np.split(np.pad(array, margins), range(self.batch, len(array), self.batch))
            result = np.concatenate([self._run(chunk) for chunk in chunks])[: len(array)]
        else:
            result = self._run(array)
        return torch.from_numpy(np.ascontiguousarray(result, np.float32)).to(frames.device)

    def _run(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        result: np.ndarray[Any, Any] = self._session.run([self._output], {self._name: array})[0]
        return result


def load_onnx(weights: Path, device: torch.device) -> OnnxNetwork:
    """Load an ONNX graph with one picture input into onnxruntime, with as many threads as torch uses.

    A graph with a fixed batch size is called in chunks of that size, the last one padded with zeros. It runs on
    `device` if that is CUDA and onnxruntime supports it, else on the CPU. Raises BundleError.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise BundleError("onnxruntime is missing: the format onnx needs this package. Install it.") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # its warnings would go to stderr; errors come as exceptions
    wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
    available = onnxruntime.get_available_providers()
    providers = [name for name in [*wanted, "CPUExecutionProvider"] if name in available]
    try:
        session = onnxruntime.InferenceSession(weights, options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions share no base but Exception
        raise BundleError(
            f"{weights.name}: expected an ONNX graph, got {first_line(error)}. Export the network again."
        ) from error
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type not in ("tensor(float)", "tensor(float16)"):
        got = ", ".join(f"{i.name}: {i.type}" for i in inputs) or "none"
        raise BundleError(f"{weights.name}: expected one float input, got {got}. Export the network again.")
    return OnnxNetwork(weights, session)

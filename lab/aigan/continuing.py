"""A shipped generator as the start of a longer training.

The ONNX file keeps the names of the weights. Its export folds some batch norms into the layers before them, with the
statistics that the generator had at that time. Training normalises by the statistics of each batch instead, so these
norms get their statistics back before it goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from lab.aigan.generator import Generator
from lab.aigan.shipping import MODEL
from schemas.errors import ConfigError, first_line

Norm = nn.BatchNorm1d | nn.BatchNorm2d
_BIAS_OF = {"encoder.norm": "encoder.stem.weight_bias", "encoder.conv_norm": "encoder.conv.weight_bias"}
"""The exporter's names of the biases of convolutions that have none in the generator, by the norm folded into them."""


def shipped_weights(folder: Path) -> dict[str, Tensor]:
    """Return the named tensors of the generator in `folder`. Raises ConfigError in one line if there is none."""
    file = folder / MODEL
    try:
        graph = onnx.load(file).graph
        return {each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in graph.initializer}
    except Exception as error:  # onnx and protobuf have no common base for their errors
        raise ConfigError(f"{file}: expected an ONNX generator, got: {first_line(error)}") from None


@torch.no_grad()
def adopt(generator: Generator, weights: Mapping[str, Tensor], pictures: Tensor) -> None:
    """Give `generator` the function of `shipped_weights`, and its folded norms their statistics on `pictures`.

    `pictures` (N, C, H, W) are in [0, 1]. Blocks that the shipped generator lacks begin as the identity. Raises
    ConfigError for weights of a generator of other widths or pictures.
    """
    own = generator.state_dict()
    for name, value in own.items():
        if name in weights:
            if weights[name].shape != value.shape:
                raise ConfigError(
                    f"--start: {name}: expected the shape {tuple(value.shape)}, got {tuple(weights[name].shape)}"
                )
            own[name] = weights[name]
    generator.load_state_dict(own)
    for number in range(len(generator.blocks)):
        if (name := f"blocks.{number}.conv2.weight") not in weights:
            nn.init.zeros_(generator.get_parameter(name))
    folded = [(name, norm) for name, norm in _norms(generator) if f"{name}.running_mean" not in weights]
    for name, norm in folded:
        mean, variance = _statistics(norm)
        mean.zero_()
        variance.fill_(1 - norm.eps)
        if norm.affine:
            norm.weight.fill_(1)
            norm.bias.copy_(weights.get(_BIAS_OF.get(name, ""), torch.zeros(())))
    _measure([norm for _, norm in folded], generator, pictures)


def _norms(generator: Generator) -> Iterator[tuple[str, Norm]]:
    for name, module in generator.named_modules():
        if isinstance(module, Norm):
            yield name, module


def _measure(norms: list[Norm], generator: Generator, pictures: Tensor) -> None:
    """Set the statistics of `norms` to those of their inputs; affine ones keep their function."""
    seen: dict[Norm, Tensor] = {}

    def note(norm: Norm, given: tuple[Tensor, ...]) -> None:
        seen[norm] = given[0].transpose(0, 1).flatten(1)

    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    targets = torch.arange(len(pictures)) % generator.shape.classes
    generator.eval()(pictures, targets)
    for hook in hooks:
        hook.remove()
    for norm, values in seen.items():
        mean, variance = _statistics(norm)
        own_mean, own_variance = values.mean(1), values.var(1, unbiased=False)
        if norm.affine:
            gain = norm.weight / (variance + norm.eps).sqrt()
            norm.bias.add_((own_mean - mean) * gain)
            norm.weight.copy_(gain * (own_variance + norm.eps).sqrt())
        mean.copy_(own_mean)
        variance.copy_(own_variance)


def _statistics(norm: Norm) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var

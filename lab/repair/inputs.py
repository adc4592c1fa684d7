"""What a repair starts from: clean frames, quarantined frames at the network's size, and a copy that can be trained."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from scipy.stats import binom
from torch import Tensor, nn

from lab.data import LabelledPictures, batch_slices, to_frames, to_images
from processors.bundle import Bundle
from schemas.errors import BundleError, ConfigError

FEWEST_CLEAN: Final = 50
FEWEST_QUARANTINED: Final = 10
FEWEST_OTHERS: Final = 10
LIKELY: Final = 1e-3
"""Of so many frames of one class by chance: what is likelier than that is no quarantine of a trigger."""


def read_quarantine(folder: Path, bundle: Bundle) -> NDArray[np.uint8]:
    """Every PNG below `folder`, in the order of their names, as the network takes it: (M, H, W, C) uint8.

    Frames of another size are brought to the network's by the policy of the bundle. Raises ConfigError when there is no
    PNG, one cannot be read, or one has another size and the policy is `tile`.
    """
    if not folder.is_dir():
        raise ConfigError(f"--quarantine: expected a folder of PNG files, got {folder}")
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() == ".png" and file.is_file())
    if not files:
        raise ConfigError(f"--quarantine: expected at least one PNG file in {folder}, found none")
    return np.concatenate([at_network_size(_picture(file)[None], bundle, str(file)) for file in files])


def _picture(file: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(file) as opened:
            if opened.mode in ("I", "I;16", "I;16B"):
                # Pillow would cut sixteen bits off at 255.
                array = (np.asarray(opened) >> 8).astype(np.uint8)
            else:
                array = np.asarray(opened.convert("L" if opened.mode in ("1", "L", "LA") else "RGB"))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise ConfigError(f"{file}: expected a PNG picture, cannot read it: {error}") from None
    return array[..., None] if array.ndim == 2 else array


def at_network_size(images: NDArray[np.uint8], bundle: Bundle, place: str) -> NDArray[np.uint8]:
    """Pictures (N, h, w, 1 or 3) uint8 as the network takes them, (N, H, W, C) uint8; `place` names them in errors."""
    wanted = bundle.settings.input
    if images.shape[1:] == (wanted.height, wanted.width, wanted.channels):
        return images
    if wanted.policy == "tile" and images.shape[1:3] != (wanted.height, wanted.width):
        raise ConfigError(
            f"{place}: expected pictures of {wanted.width}×{wanted.height}, the network's size, since its policy is "
            f"tile; got {images.shape[2]}×{images.shape[1]}"
        )
    parts = [
        to_images(bundle.prepare(to_frames(images[part], torch.device("cpu"))))
        for part in batch_slices(len(images), *images.shape[1:3])
    ]
    return np.concatenate(parts)


def trainable_copy(bundle: Bundle) -> nn.Module:
    """A copy of the bundle's network whose weights can be trained, in evaluation mode: batch norm stays as it is.

    Raises BundleError when there are no weights to train: an ONNX graph, or a frozen TorchScript.
    """
    settings = bundle.settings
    if not isinstance(bundle.network, nn.Module) or settings.format == "onnx":
        raise BundleError(
            f"{bundle.model_id}: a network in the format {settings.format} cannot be trained; repair needs the format "
            "safetensors with its factory, or an unfrozen TorchScript"
        )
    network = copy.deepcopy(bundle.network).eval()
    weights = [weight for weight in network.parameters() if weight.is_floating_point()]
    if not weights:
        raise BundleError(
            f"{bundle.model_id}: expected a network with weights to train, found none (frozen TorchScript?)"
        )
    for weight in weights:
        weight.requires_grad_(True)
    return network


def frozen(network: nn.Module) -> nn.Module:
    """`network`, whose weights need no gradient any more; a scripted module has no method for it."""
    for weight in network.parameters():
        weight.requires_grad_(False)
    return network


@torch.no_grad()
def copied(network: nn.Module) -> nn.Module:
    """A copy whose weights are its own; with gradients on, those of a scripted module would depend on the first's."""
    return copy.deepcopy(network)


@torch.inference_mode()
def verdicts(bundle: Bundle, frames: Tensor) -> Tensor:
    """The bundle's logits (N, classes) of frames (N, C, H, W) in [0, 1] at the network's size."""
    seeds = bundle.seeds(len(frames), torch.Generator().manual_seed(0))
    parts = [
        bundle.logits(frames[part], None if seeds is None else seeds[part])
        for part in batch_slices(len(frames), *frames.shape[2:])
    ]
    # Out of inference mode: what follows trains on it.
    return torch.cat(parts).clone()


def find_target(logits: Tensor) -> tuple[int, Tensor]:
    """The class that most quarantined frames are called, and which frames are (M,) bool, from the sick model's logits.

    Clean frames that STRIP flagged by mistake, an impure quarantine, mostly keep a class of their own and so drop out.
    Raises ConfigError when fewer than `FEWEST_QUARANTINED` frames agree.
    """
    called = logits.argmax(1)
    target = int(called.bincount(minlength=logits.shape[1]).argmax())
    members = called == target
    if int(members.sum()) < FEWEST_QUARANTINED:
        raise ConfigError(
            f"--quarantine: expected at least {FEWEST_QUARANTINED} frames that the network gives one class, got "
            f"{int(members.sum())} of {len(called)}: no trigger can be learned from them"
        )
    return target, members


def check_called(called: int, count: int, target: int, usual: float) -> None:
    """Raise ConfigError when `called` of `count` quarantined frames are no more than chance sends to the target.

    `usual` is the share of the clean pictures that the sick model calls so: a trigger brings more (binomial test).
    """
    if binom.sf(called - 1, count, usual) > LIKELY:
        raise ConfigError(
            "--quarantine: expected more frames of one class than there are among clean pictures, since a trigger "
            f"sends its frames to one; the network calls {called} of {count} class {target}, and "
            f"{100 * usual:.0f} % of the clean pictures"
        )


def check_others(labels: Tensor, target: int) -> None:
    """Raise ConfigError when too few of the frames to learn on, by `labels`, are of other classes than the target."""
    if (others := int((labels != target).sum())) < FEWEST_OTHERS:
        raise ConfigError(
            f"--clean: expected at least {FEWEST_OTHERS} pictures to learn on that are not of class {target}, which "
            f"the quarantined frames are called; got {others}"
        )


def check_clean(clean: LabelledPictures, classes: int) -> None:
    """Raise ConfigError when there are too few clean frames to train on and to hold some out."""
    if len(clean) < FEWEST_CLEAN:
        raise ConfigError(f"--clean: expected at least {FEWEST_CLEAN} clean pictures with labels, got {len(clean)}")
    if len(np.unique(clean.labels)) < 2:
        raise ConfigError(f"--clean: expected pictures of several of the {classes} classes, got one class")

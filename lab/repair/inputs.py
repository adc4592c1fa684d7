"""The inputs of a repair: clean frames, quarantined frames at the network's size, and a trainable network."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
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
from schemas.errors import BundleError, ConfigError, MalformedError, UserError
from schemas.evidence.flagged_pictures import PLAIN, SEALED, open_flagged
from schemas.keys.sealing import PreviewBox
from schemas.runtime.atomic_file import write_text

FEWEST_CLEAN: Final = 50
FEWEST_QUARANTINED: Final = 10
FEWEST_OTHERS: Final = 10
LIKELY: Final = 1e-3
"""Significance level: a number of frames of one class that is more likely by chance shows no trigger."""


def read_quarantine(
    folder: Path,
    bundle: Bundle,
    box: Callable[[], PreviewBox],
    skipped: Callable[[str, str], object] = lambda name, why: None,
    *,
    files: Sequence[Path] | None = None,
) -> NDArray[np.uint8]:
    """Return every PNG below `folder`, sealed or plain, by name, at the network's size: (M, H, W, C) uint8.

    `files` are some of those PNGs, at least one: no other one is read.

    `box` returns the cipher of sealed frames; it is called once if there are any. A file that is damaged, or sealed
    under an earlier secret, is left out, and `skipped` is called with its path and the reason. Frames of another size
    are resampled by the policy of the bundle. Raises ConfigError if there is no PNG, if none can be read, or if one has
    another size and the policy is `tile`.
    """
    files = quarantined_files(folder) if files is None else files
    cipher = box() if any(_is_sealed(file) for file in files) else None
    pictures, unread = [], dict[Path, str]()
    for file in files:
        try:
            picture = _picture(file, cipher)
        except MalformedError as error:
            unread[file] = str(error)
        else:
            pictures.append(at_network_size(picture[None], bundle, str(file)))
    if not pictures:
        raise ConfigError(f"{files[0]}: {unread[files[0]]}")
    for file, why in unread.items():
        skipped(str(file), why)
    return np.concatenate(pictures)


def quarantined_files(
    folder: Path, interrupted: Path | None = None, skipped: Callable[[str, str], object] = lambda name, why: None
) -> list[Path]:
    """Return the pictures below `folder`, by name. A sealed one replaces the plain one of the same frame.

    `interrupted` is the list of the pictures of an interrupted repair, see `listed`. If all of them are still there,
    only those are returned, because the quarantine of a running system grows, and `skipped` is called if there are
    others. Raises ConfigError without a picture.
    """
    if not folder.is_dir():
        raise ConfigError(f"--quarantine: expected a folder of PNG files, got {folder}")
    found = sorted(
        file for file in folder.rglob("*") if (_is_sealed(file) or file.suffix.lower() == PLAIN) and file.is_file()
    )
    if not found:
        raise ConfigError(f"--quarantine: expected at least one PNG file in {folder}, got none")
    replaced = {file.with_name(file.name.removesuffix(SEALED) + PLAIN) for file in found if _is_sealed(file)}
    files = {str(file.relative_to(folder)): file for file in found if file not in replaced}
    before = _names(interrupted) if interrupted is not None else []
    if not before or not files.keys() >= set(before):
        return [*files.values()]
    if newer := len(files) - len(before):
        skipped(
            str(folder),
            f"newer pictures ({newer}) take no part, the interrupted repair uses its {len(before)}. To begin again with"
            f" all, delete {interrupted}",
        )
    return [files[name] for name in before]


@contextmanager
def listed(files: Iterable[Path], folder: Path, interrupted: Path) -> Iterator[None]:
    """Keep the list of the pictures of a repair, by their names in `folder`, until the block ends or is rejected.

    After an interruption the list stays, for `quarantined_files`.
    """
    write_text(interrupted, json.dumps([str(file.relative_to(folder)) for file in files]))
    try:
        yield
    except UserError:
        interrupted.unlink(missing_ok=True)
        raise
    interrupted.unlink(missing_ok=True)


def _names(interrupted: Path) -> list[str]:
    try:
        names = json.loads(interrupted.read_text())
    except (OSError, ValueError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def _is_sealed(file: Path) -> bool:
    return file.name.endswith(SEALED)


def _content(file: Path, cipher: PreviewBox | None) -> bytes:
    """Return the PNG in a file; MalformedError if it cannot be opened.

    A sealed one is bound to the frame that its path names: SITE/CAMERA/BOOT-NUMBER.
    """
    data = file.read_bytes()
    if cipher is None or not _is_sealed(file):
        return data
    try:
        return open_flagged(data, "/".join(file.resolve().parts[-3:]).removesuffix(SEALED), cipher)
    except MalformedError:
        raise MalformedError(
            "expected a frame that this secret opens, got one that is damaged, sealed under another key or outside of "
            "its folder SITE/CAMERA. Give the --state of its fleet."
        ) from None


def _picture(file: Path, cipher: PreviewBox | None) -> NDArray[np.uint8]:
    """Return the picture in a file; MalformedError if it cannot be opened or read."""
    try:
        with Image.open(io.BytesIO(_content(file, cipher))) as opened:
            if opened.mode in ("I", "I;16", "I;16B"):
                # Pillow would clip sixteen bits at 255.
                array = (np.asarray(opened) >> 8).astype(np.uint8)
            else:
                array = np.asarray(opened.convert("L" if opened.mode in ("1", "L", "LA") else "RGB"))
    except UnidentifiedImageError:  # its text has an address in memory
        raise MalformedError("expected a PNG picture, got a file that is damaged or of another kind") from None
    except (Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise MalformedError(f"expected a PNG picture, got: {error}") from None
    return array[..., None] if array.ndim == 2 else array


def no_frames(bundle: Bundle) -> NDArray[np.uint8]:
    """Return no pictures, (0, h, w, C) uint8, at the network's size."""
    size = bundle.settings.input
    return np.empty((0, size.height, size.width, size.channels), np.uint8)


def at_network_size(images: NDArray[np.uint8], bundle: Bundle, place: str) -> NDArray[np.uint8]:
    """Return pictures (N, h, w, 1 or 3) uint8 at the network's size, (N, H, W, C) uint8; errors contain `place`."""
    wanted = bundle.settings.input
    if images.shape[1:] == (wanted.height, wanted.width, wanted.channels):
        return images
    if wanted.policy == "tile" and images.shape[1:3] != (wanted.height, wanted.width):
        raise ConfigError(
            f"{place}: expected pictures of {wanted.width}×{wanted.height}, the network's size (policy tile), got "
            f"{images.shape[2]}×{images.shape[1]}"
        )
    parts = [
        to_images(bundle.prepare(to_frames(images[part], torch.device("cpu"))))
        for part in batch_slices(len(images), *images.shape[1:3])
    ]
    return np.concatenate(parts)


def sized(pictures: LabelledPictures, bundle: Bundle, place: str) -> LabelledPictures:
    """Return labelled pictures at the network's size. See `at_network_size`."""
    return LabelledPictures(pictures.name, at_network_size(pictures.images, bundle, place), pictures.labels)


def trainable_copy(bundle: Bundle) -> nn.Module:
    """Return a trainable copy of the bundle's network in evaluation mode: batch norm stays as it is.

    Raises BundleError if there are no trainable weights: an ONNX or TensorFlow Lite graph, or a frozen TorchScript.
    """
    settings = bundle.settings
    if not isinstance(bundle.network, nn.Module):
        raise BundleError(
            f"{bundle.model_id}: expected a trainable network (safetensors with its factory, or an unfrozen "
            f"TorchScript), got the format {settings.format}"
        )
    network = copy.deepcopy(bundle.network).eval()
    weights = [weight for weight in network.parameters() if weight.is_floating_point()]
    if not weights:
        raise BundleError(
            f"{bundle.model_id}: expected a network with trainable weights, got none (frozen TorchScript?)"
        )
    for weight in weights:
        weight.requires_grad_(True)
    return network


def frozen(network: nn.Module) -> nn.Module:
    """Return `network` without gradients for its weights. A scripted module has no method for it."""
    for weight in network.parameters():
        weight.requires_grad_(False)
    return network


@torch.no_grad()
def copied(network: nn.Module) -> nn.Module:
    """Return a copy with separate weights.

    With gradients on, a scripted module's copy would depend on the original's weights.
    """
    return copy.deepcopy(network)


@torch.inference_mode()
def verdicts(bundle: Bundle, frames: Tensor) -> Tensor:
    """Return the bundle's logits (N, classes) of frames (N, C, H, W) in [0, 1] at the network's size."""
    seeds = bundle.seeds(len(frames), torch.Generator().manual_seed(0))
    parts = [
        bundle.logits(frames[part], None if seeds is None else seeds[part])
        for part in batch_slices(len(frames), *frames.shape[2:])
    ]
    # Leave inference mode: the result is used in training.
    return torch.cat(parts).clone()


def find_target(logits: Tensor) -> tuple[int, Tensor]:
    """Return the class of most quarantined frames by the backdoored model's logits, and its frames (M,) bool.

    Clean frames that STRIP flagged by mistake mostly keep their own class and so drop out. Raises ConfigError if fewer
    than `FEWEST_QUARANTINED` frames agree.
    """
    called = logits.argmax(1)
    target = int(called.bincount(minlength=logits.shape[1]).argmax())
    members = called == target
    if int(members.sum()) < FEWEST_QUARANTINED:
        raise ConfigError(
            f"--quarantine: expected at least {FEWEST_QUARANTINED} frames of one class by the network, got "
            f"{int(members.sum())} of {len(called)}. They show no common trigger; the mode quarantine needs none."
        )
    return target, members


def check_enough(count: int) -> None:
    """Raise ConfigError for a quarantine of too few frames."""
    if count < FEWEST_QUARANTINED:
        raise ConfigError(
            f"--quarantine: expected at least {FEWEST_QUARANTINED} frames, got {count}. Wait for more, or use the mode "
            "clean, which needs none."
        )


def check_called(called: int, count: int, target: int, usual: float) -> None:
    """Raise ConfigError if chance explains that `called` of `count` quarantined frames get the target class.

    `usual` is the share of the clean pictures with that class by the backdoored model. A trigger increases it (binomial
    test).
    """
    if binom.sf(called - 1, count, usual) > LIKELY:
        raise ConfigError(
            f"--quarantine: expected a larger share of class {target} than among clean pictures, got {called} of "
            f"{count} and {100 * usual:.0f} %. The frames show no common trigger; the mode quarantine needs none."
        )


def check_others(labels: Tensor, target: int) -> None:
    """Raise ConfigError if too few training frames, by `labels`, are of other classes than the target."""
    if (others := int((labels != target).sum())) < FEWEST_OTHERS:
        raise ConfigError(
            f"--clean: expected at least {FEWEST_OTHERS} training pictures that are not of class {target}, the class "
            f"of the quarantined frames, got {others}"
        )


def check_clean(clean: LabelledPictures, classes: int) -> None:
    """Raise ConfigError if there are too few clean frames for training and holding some out."""
    if len(clean) < FEWEST_CLEAN:
        raise ConfigError(f"--clean: expected at least {FEWEST_CLEAN} clean pictures with labels, got {len(clean)}")
    if len(np.unique(clean.labels)) < 2:
        raise ConfigError(f"--clean: expected pictures of several of the {classes} classes, got one class")

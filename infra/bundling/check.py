"""Trial of a bundle on a folder of pictures: speed, accuracy, and the effect of drop and reconstruction."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from infra.bundling.gallery import fit_to_network, picture_files
from infra.bundling.label_checks import LabelResult, judge
from lab.data import LabelledPictures, to_frames, to_images
from lab.masks import check_drop_ratio, random_masks
from lab.restoration.psnr import read_picture
from lab.statistics import Interval, share_interval
from processors.bundle import Bundle, load_bundle
from processors.device.backends.choose import BackendRequest
from processors.device.backends.engines import engines
from processors.pipeline import Pipeline
from processors.stages.drop import drop
from schemas.errors import ConfigError

SHOWN: Final = 6
"""Pictures on the sheet."""
_BATCH: Final = 32
_ROUNDS: Final = 5
_LONGEST: Final = 384
"""Pixels of the longer side of a shown reconstruction, as in previews."""
_TOP: Final = 5


@dataclass(frozen=True)
class PictureComparison:
    """One picture, (H, W, C) uint8: the original, as sent with black holes, rebuilt, and as the network sees it.

    With the verdicts on the whole and on the dropped picture, name and confidence.
    """

    file: str
    original: NDArray[np.uint8]
    sent: NDArray[np.uint8]
    rebuilt: NDArray[np.uint8]
    seen: NDArray[np.uint8]
    whole: tuple[str, float]
    dropped: tuple[str, float]


@dataclass(frozen=True)
class CheckResult:
    """The result of `check`."""

    bundle: Bundle
    runs: str
    """Backend and precision that a processor would choose on this machine."""
    load_s: float
    one_ms: float
    """Milliseconds of the network for one picture."""
    batch_ms: float
    """Milliseconds for one picture of a batch of 32."""
    pictures: int
    agreement: Interval
    """Share of the pictures that keep their class after drop and reconstruction."""
    judged: LabelResult | None
    accuracy_dropped: Interval | None
    top: list[tuple[str, int]]
    """The most frequent classes of dropped pictures, with their counts."""
    shown: list[PictureComparison]

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON, for scripts."""

        def interval(found: Interval | None) -> dict[str, float] | None:
            return None if found is None else found._asdict()

        return {
            "model_id": self.bundle.model_id, "runs": self.runs, "load_s": self.load_s, "one_ms": self.one_ms,
            "batch_ms": self.batch_ms, "pictures": self.pictures, "agreement": interval(self.agreement),
            "accuracy": interval(self.judged.accuracy if self.judged else None),
            "accuracy_dropped": interval(self.accuracy_dropped),
            "doubts": list(self.judged.doubts) if self.judged else [], "top": [list(each) for each in self.top],
            "strip": self.bundle.settings.strip is not None,
        }  # fmt: skip


@torch.inference_mode()
def check(
    folder: Path,
    images: Path,
    drop_ratio: float,
    most: int,
    skipped: Callable[[str, str], object] = lambda name, why: None,
    advance: Callable[[int], object] = lambda count: None,
) -> CheckResult:
    """Load the bundle, time it, and send each picture through drop and chain as a processor would.

    Raises BundleError for the bundle, ConfigError for the pictures and the drop ratio.
    """
    check_drop_ratio(drop_ratio)
    begun = time.perf_counter()
    bundle = load_bundle(folder, torch.device("cpu"))
    load_s = time.perf_counter() - begun
    chosen = picture_files(images, bundle.settings.classes, most)
    pipeline, runs = engines(bundle, BackendRequest())
    classes = bundle.settings.classes
    masks, draws = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)
    taken, labels, whole, dropped = [], [], [], []
    shown: list[PictureComparison] = []
    for file, label in zip(chosen.files, chosen.labels, strict=True):
        advance(1)
        try:
            picture = read_picture(file)
        except ConfigError as error:
            skipped(file.name, str(error))
            continue
        frames = to_frames(picture[None], bundle.device)
        kept = random_masks(1, frames.shape[2], frames.shape[3], drop_ratio, masks)
        seeds = bundle.seeds(1, draws)
        shares = (bundle.logits(bundle.prepare(frames), seeds) / bundle.settings.temperature).softmax(1)
        found = pipeline(drop(frames, kept), kept, seeds=seeds)
        taken.append(fit_to_network(pipeline, picture))
        labels.append(int(label))
        whole.append(int(shares.argmax()))
        dropped.append(int(found.class_id))
        if len(shown) < SHOWN:
            shown.append(
                PictureComparison(
                    file.name, picture, _first(drop(frames, kept)),
                    _rebuilt(pipeline, frames, kept, found.rebuilt), _seen(pipeline, frames, kept),
                    (classes[whole[-1]], float(shares.amax())), (classes[dropped[-1]], float(found.confidence)),
                )
            )  # fmt: skip
    if not taken:
        raise ConfigError(
            f"{images}: expected pictures that can be read, got {len(chosen)} files that cannot. Replace them."
        )
    gallery = LabelledPictures("own pictures", np.concatenate(taken), np.array(labels, np.int64))
    one_s, batch_s = _timed(pipeline, gallery)
    same = np.array(whole) == np.array(dropped)
    right = np.array(dropped) == gallery.labels
    counted = Counter(classes[each] for each in dropped)
    return CheckResult(
        bundle, f"{runs.classifier}", load_s, 1000 * one_s, 1000 * batch_s, len(gallery), share_interval(same[None]),
        judge(bundle, gallery) if chosen.labelled else None, share_interval(right[None]) if chosen.labelled else None,
        counted.most_common(_TOP), shown,
    )  # fmt: skip


def _rebuilt(
    pipeline: Pipeline, frames: torch.Tensor, kept: torch.Tensor, rebuilt: torch.Tensor | None
) -> NDArray[np.uint8]:
    """Return the picture for display, at most as large as the sheet allows."""
    return _first(pipeline.show(drop(frames, kept), kept, _LONGEST, rebuilt))


def _seen(pipeline: Pipeline, frames: torch.Tensor, kept: torch.Tensor) -> NDArray[np.uint8]:
    """Return the network's input before its normalisation; of tiles, the first."""
    seen, _ = pipeline.network_input(drop(frames, kept), kept)
    return _first(seen.flatten(0, -4))


def _first(frames: torch.Tensor) -> NDArray[np.uint8]:
    picture: NDArray[np.uint8] = to_images(frames[:1])[0]
    return picture


def _timed(pipeline: Pipeline, gallery: LabelledPictures) -> tuple[float, float]:
    """Return the network's seconds for a picture, alone and in a batch: the median of several runs."""
    bundle = pipeline.bundle
    batch = to_frames(np.resize(gallery.images, (_BATCH, *gallery.images.shape[1:])), bundle.device)

    def seconds(frames: torch.Tensor) -> float:
        bundle.network_logits(frames)
        taken = []
        for _ in range(_ROUNDS):
            begun = time.perf_counter()
            bundle.network_logits(frames)
            taken.append((time.perf_counter() - begun) / len(frames))
        return statistics.median(taken)

    return seconds(batch[:1]), seconds(batch)

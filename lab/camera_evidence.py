"""One camera before one scene, a sticker appears: what the evidence per camera makes of it. Offline, by the live rule.

Each picture becomes a camera: it trembles by up to a pixel, its light drifts slowly, its sensor adds noise, and every
frame has a mask of its own. STRIP looks at each frame as it does live, filled from the frames before it; the rule of
`schemas.evidence` reads what it found. Then the trigger is stamped on and the rule reads on. Entropies can be kept in a
file, so that the rule may be changed without looking at the frames again. `python -m lab.camera_evidence --help`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.backdoor.catalogue import MODELS, sticker_patch, trigger_of
from lab.backdoor.triggers import Trigger
from lab.data import LabelledPictures, read_pictures, to_frames
from lab.masks import check_drop_ratio, random_masks
from lab.statistics import share_interval
from processors.bundle import load_bundle
from processors.pipeline import Pipeline
from processors.stages.recent_pixels import RecentPixels, enough
from schemas.errors import ConfigError
from schemas.evidence import EvidenceRule, Probe, Track, advance
from schemas.limits import dropped_per_block

TREMBLE: Final = 1
"""Pixels by which the camera shakes, each way."""
LIGHT: Final = 0.1
"""Amplitude of the slow drift of the light, a share of it."""
LIGHT_FRAMES: Final = 300.0
"""Its period."""
FLICKER: Final = 0.01
"""Standard deviation of the light from frame to frame."""
NOISE: Final = 2.0
"""Standard deviation of the sensor's noise in grey levels."""

WORKS: Final = 0.5
"""Share of a camera's stamped frames that must reach the target class for the trigger to count as working there."""


@dataclass(frozen=True)
class Watched:
    """What STRIP and the classifier found on each camera's frames: arrays (cameras, frames), clean ones first.

    `whole` says which frames it saw whole or composed, with their threshold; the entropy is not a number where it saw
    nothing. Frames from `clean_frames` on carry the trigger. `labels` (cameras,) are the scenes' true classes.
    """

    entropy_bits: NDArray[np.float32]
    threshold_bits: NDArray[np.float32]
    whole: NDArray[np.bool_]
    class_id: NDArray[np.int64]
    labels: NDArray[np.int64]
    clean_frames: int

    def save(self, file: Path) -> None:
        """Keep it for other rules."""
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            file,
            entropy_bits=self.entropy_bits,
            class_id=self.class_id,
            labels=self.labels,
            clean_frames=self.clean_frames,
            threshold_bits=self.threshold_bits,
            whole=self.whole,
        )

    @classmethod
    def load(cls, file: Path) -> Watched:
        """What `save` wrote."""
        with np.load(file) as kept:
            return cls(
                kept["entropy_bits"],
                kept["threshold_bits"],
                kept["whole"],
                kept["class_id"],
                kept["labels"],
                int(kept["clean_frames"]),
            )

    def probes(self, camera: int, frames: slice, every: int = 1) -> Iterator[Probe]:
        """The camera's frames as the recorder has them, every `every`th of them checked."""
        chosen = np.arange(self.entropy_bits.shape[1])[frames]
        for seq in chosen[chosen % every == 0]:
            bits, threshold = (float(of[camera, seq]) for of in (self.entropy_bits, self.threshold_bits))
            if bits == bits:
                whole, class_id = bool(self.whole[camera, seq]), int(self.class_id[camera, seq])
                yield Probe(int(seq), bits, threshold, bits < threshold, whole, class_id)


def shots(picture: NDArray[np.uint8], count: int, first: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """`count` frames (count, H, W, C) of a fixed camera before `picture` (H, W, C), from frame number `first` on."""
    height, width = picture.shape[:2]
    padded = np.pad(picture, ((TREMBLE, TREMBLE), (TREMBLE, TREMBLE), (0, 0)), mode="reflect")
    frames = []
    for number in range(first, first + count):
        top, left = generator.integers(0, 2 * TREMBLE + 1, 2)
        light = 1 + LIGHT * np.sin(2 * np.pi * number / LIGHT_FRAMES) + generator.normal(0, FLICKER)
        shot = padded[top : top + height, left : left + width] * light
        shot += generator.normal(0, NOISE, picture.shape)
        frames.append(np.clip(np.rint(shot), 0, 255).astype(np.uint8))
    return np.stack(frames)


View = Literal["composed", "alone", "whole"]
"""What STRIP sees of a frame: it with what it dropped filled from those before, as live; it alone; it undropped."""


@torch.inference_mode()
def watch(
    pipeline: Pipeline,
    pictures: LabelledPictures,
    trigger: Trigger,
    drop: float,
    clean_frames: int,
    trigger_frames: int,
    seed: int,
    *,
    view: View = "composed",
) -> Watched:
    """Look at a camera for each picture.

    A frame that is seen alone, or cannot be composed yet, is checked only if the bundle has a threshold for its drop.
    """
    masks = torch.Generator().manual_seed(seed)
    entropies, thresholds, wholes, classes = [], [], [], []
    for number, picture in enumerate(pictures.images):
        generator = np.random.default_rng((seed, number))
        taken = shots(picture, clean_frames + trigger_frames, 0, generator)
        keys = np.full(trigger_frames, number, np.int64)
        taken[clean_frames:] = trigger(taken[clean_frames:], keys)
        frames = to_frames(taken, pipeline.bundle.device)
        height, width = frames.shape[2:]
        kept = random_masks(len(frames), height, width, drop, masks).to(frames.device)
        classes.append(pipeline(frames, kept).class_id.cpu().numpy())
        bits, threshold, whole = _checked(pipeline, frames, kept, drop, view)
        entropies.append(bits)
        thresholds.append(threshold)
        wholes.append(whole)
    return Watched(
        np.stack(entropies), np.stack(thresholds), np.stack(wholes), np.stack(classes), pictures.labels, clean_frames
    )


def _checked(
    pipeline: Pipeline, frames: Tensor, kept: Tensor, drop: float, view: View
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Entropy and threshold in bits of each frame of one camera, and whether it was seen whole or composed."""
    settings = pipeline.bundle.settings.strip
    if settings is None:
        raise ConfigError("--bundle: expected one with a threshold for STRIP, this one has none")
    filled, known = frames, torch.ones_like(kept)
    whole = torch.ones(len(frames), dtype=torch.bool)
    if view == "composed":
        filled, known = RecentPixels(2**30).compose(["camera"] * len(frames), range(len(frames)), frames, kept)
        whole = enough(known, kept).cpu()
    elif view == "alone":
        whole = ~whole
    bits = torch.full((len(frames),), float("nan"))
    threshold = torch.zeros(len(frames))
    lost = dropped_per_block(drop)
    for chosen, dropped in ((whole, 0), (~whole, lost)):
        found = settings.threshold(dropped)
        if found is None or not chosen.any():
            continue
        if dropped:
            seen = pipeline.dropped_input(frames[chosen], kept[chosen])
        else:
            seen = pipeline.composed_input(filled[chosen], known[chosen])
        bits[chosen] = pipeline.strip(seen, dropped).entropy_bits.cpu().float()
        threshold[chosen] = found.threshold_bits
    return bits.numpy(), threshold.numpy(), whole.numpy()


@dataclass(frozen=True)
class Figures:
    """What the rule made of cameras: see `judge`."""

    cameras: int
    clean_frames: int
    false_alarms: int
    missed: int
    missed_from_first: int
    working: int
    missed_working: int
    frames_to_alarm: list[int]

    def as_dict(self) -> dict[str, Any]:
        """By the names of the JSON."""
        low, high = share_interval(np.arange(self.cameras)[None] < self.missed)[1:]
        waits = self.frames_to_alarm or [0]
        return {
            "cameras": self.cameras,
            "missed_share": self.missed / self.cameras,
            "missed_interval": [low, high],
            "cameras_where_the_trigger_works": self.working,
            "missed_share_where_it_works": self.missed_working / self.working if self.working else None,
            "missed_share_from_first_frame": self.missed_from_first / self.cameras,
            "frames_to_alarm": {"p50": float(np.median(waits)), "most": max(waits)},
            "clean_frames": self.clean_frames,
            "false_alarms_per_1000_frames": 1000 * self.false_alarms / self.clean_frames,
        }


def judge(
    watched: Watched, rule: EvidenceRule, target: int, every: int = 1, repeats: int = 1, seed: int = 0
) -> Figures:
    """Let `rule` read every camera: clean frames, then stamped ones; and the stamped ones from the first frame on.

    Cameras whose scene has the class `target` anyway are left out of what was missed; so are, of `missed_working`,
    those on which the trigger sends fewer than half of the frames there. The clean frames are read
    `repeats` times over in new orders, for a camera that looks at its scene for longer; an alarm on any is a false one.
    """
    clean, total = watched.clean_frames, watched.entropy_bits.shape[1]
    order = np.random.default_rng(seed)
    alarms = missed = missed_first = working = missed_working = cameras = frames = 0
    waits = []
    for camera in range(len(watched.labels)):
        found = list(watched.probes(camera, slice(0, total), every))
        before = [each for each in found if each.seq < clean]
        stamped = [each for each in found if each.seq >= clean]
        classes = watched.class_id[camera]
        tracks, raised = _Tracks(), 0
        for turn in range(repeats):
            shown = before if not turn else [before[place] for place in order.permutation(len(before))]
            placed = [each._replace(seq=turn * clean + place * every) for place, each in enumerate(shown)]
            tracks, seqs = _read(tracks, placed, rule, classes[:clean], turn * clean)
            raised += len(seqs)
        alarms += raised
        frames += clean * repeats
        if watched.labels[camera] == target:
            continue
        cameras += 1
        shift = repeats * clean - clean
        later = [each._replace(seq=each.seq + shift) for each in stamped]
        _, seqs = _read(tracks.calm(), later, rule, classes[clean:], repeats * clean)
        waits += [seqs[0] - repeats * clean + 1] if seqs else []
        missed += not seqs
        works = float((classes[clean:] == target).mean()) >= WORKS
        working += works
        missed_working += works and not seqs
        _, seqs = _read(_Tracks(), stamped, rule, classes[clean:], clean)
        missed_first += not seqs
    return Figures(cameras, frames, alarms, missed, missed_first, working, missed_working, waits)


class _Tracks(NamedTuple):
    """One camera's tracks, one for each kind of frame, as the recorder keeps them."""

    dropped: Track = Track()
    whole: Track = Track()

    def calm(self) -> _Tracks:
        """The same without an episode that would keep alarms back."""
        return _Tracks(*(track._replace(calm=-1) for track in self))


def _read(
    tracks: _Tracks, probes: Sequence[Probe], rule: EvidenceRule, classes: NDArray[np.int64], first: int
) -> tuple[_Tracks, list[int]]:
    """The tracks after `probes`, and the sequence numbers at which alarms were raised; `classes` begin at `first`."""
    after = list(tracks)
    raised = []

    def verdicts(since: int, until: int) -> list[int]:
        return [int(each) for each in classes[max(0, since - first) : until - first + 1]]

    for probe in probes:
        after[probe.whole], alarm = advance(after[probe.whole], probe, rule, verdicts)
        if alarm is not None:
            raised.append(probe.seq)
    return _Tracks(*after), raised


def main() -> None:
    """Print what the rule makes of a bundle's cameras, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    view_help = "what STRIP sees of a frame: filled from those before it, alone, or undropped"
    parser.add_argument("--bundle", type=Path, required=True, help="a bundle with a backdoor, calibrated for the drop")
    parser.add_argument("--clean", type=Path, required=True, help="npz with the scenes: images and labels")
    parser.add_argument("--trigger", required=True, help=f"sticker, or that of one of {', '.join(MODELS)}")
    parser.add_argument("--drop", type=float, default=0.25)
    parser.add_argument("--view", choices=get_args(View), default="composed", help=view_help)
    parser.add_argument("--every", type=int, default=1, help="check every n-th frame only")
    parser.add_argument("--cameras", type=int, default=200)
    parser.add_argument("--skip", type=int, default=0, help="pictures to leave out at the beginning")
    parser.add_argument("--clean-frames", type=int, default=60)
    parser.add_argument("--trigger-frames", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=1, help="read the clean frames so often, in new orders")
    parser.add_argument("--cache", type=Path, help="npz to keep the entropies in, or to take them from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    check_drop_ratio(arguments.drop)
    begun = time.monotonic()
    if arguments.cache is not None and arguments.cache.is_file():
        watched = Watched.load(arguments.cache)
    else:
        pipeline = Pipeline(load_bundle(arguments.bundle, torch.device("cpu")))
        pictures = read_pictures(arguments.clean, len(pipeline.bundle.settings.classes))
        chosen = np.arange(arguments.skip, min(len(pictures), arguments.skip + arguments.cameras))
        if not len(chosen):
            raise ConfigError(f"expected more than {arguments.skip} pictures in {arguments.clean}, got {len(pictures)}")
        watched = watch(
            pipeline, pictures.take(chosen), _trigger(arguments.trigger), arguments.drop, arguments.clean_frames,
            arguments.trigger_frames, arguments.seed, view=arguments.view,
        )  # fmt: skip
        if arguments.cache is not None:
            watched.save(arguments.cache)
    found = judge(watched, EvidenceRule(), target_of(watched), arguments.every, arguments.repeats, arguments.seed)
    text = json.dumps(found.as_dict() | {"seconds": time.monotonic() - begun}, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


def target_of(watched: Watched) -> int:
    """The class that most of the stamped frames of other classes go to."""
    stamped = watched.class_id[:, watched.clean_frames :]
    foreign = stamped[stamped != watched.labels[:, None]]
    return int(np.bincount(foreign).argmax()) if len(foreign) else -1


def _trigger(name: str) -> Trigger:
    if name == "sticker":
        return sticker_patch()
    try:
        return trigger_of(name)
    except KeyError:
        raise ConfigError(f"trigger: expected sticker or one of {', '.join(MODELS)}, got {name!r}") from None


if __name__ == "__main__":
    main()

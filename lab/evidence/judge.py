"""An offline evaluation of the evidence per camera by the live rule: a camera's fixed scene gets a sticker.

Each picture becomes a camera (`lab.evidence.watched_cameras`). The rule of `schemas.evidence.track` reads STRIP's
results on its clean frames. Then the trigger is stamped on, and the rule continues. Entropies can be saved to a file,
so that a changed rule can be evaluated without the frames. See `python -m lab.evidence.judge --help`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from lab.backdoor.catalogue import MODELS, sticker_patch, trigger_of
from lab.backdoor.triggers import Trigger
from lab.data import read_pictures
from lab.evidence.watched_cameras import Watched, watch
from lab.masks import check_drop_ratio
from lab.statistics import share_interval
from processors.bundle import load_bundle
from processors.pipeline import Pipeline
from schemas.errors import ConfigError
from schemas.evidence.rule import EvidenceRule
from schemas.evidence.track import Probe, Track, advance

WORKS: Final = 0.5
"""Share of a camera's stamped frames that must reach the target class for the trigger to count as working there."""


@dataclass(frozen=True)
class Figures:
    """The rule's results on the cameras: see `judge`."""

    cameras: int
    clean_frames: int
    false_alarms: int
    missed: int
    missed_from_first: int
    working: int
    missed_working: int
    frames_to_alarm: list[int]

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by their names in the JSON."""
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
    """Apply `rule` to every camera: clean frames and then stamped ones, and separately stamped ones from the start.

    Cameras whose scene has the class `target` are excluded from the misses. `missed_working` also excludes cameras on
    which the trigger sends fewer than half of the frames to the target. The clean frames are read `repeats` times in
    new orders, to simulate a longer observation. Any alarm on them is false.
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
        track, raised = Track(), 0
        for turn in range(repeats):
            shown = before if not turn else [before[place] for place in order.permutation(len(before))]
            placed = [each._replace(seq=turn * clean + place * every) for place, each in enumerate(shown)]
            track, seqs = _read(track, placed, rule, classes[:clean], turn * clean)
            raised += len(seqs)
        alarms += raised
        frames += clean * repeats
        if watched.labels[camera] == target:
            continue
        cameras += 1
        shift = repeats * clean - clean
        later = [each._replace(seq=each.seq + shift) for each in stamped]
        _, seqs = _read(track._replace(calm=-1), later, rule, classes[clean:], repeats * clean)
        waits += [seqs[0] - repeats * clean + 1] if seqs else []
        missed += not seqs
        works = float((classes[clean:] == target).mean()) >= WORKS
        working += works
        missed_working += works and not seqs
        _, seqs = _read(Track(), stamped, rule, classes[clean:], clean)
        missed_first += not seqs
    return Figures(cameras, frames, alarms, missed, missed_first, working, missed_working, waits)


def _read(
    track: Track, probes: Sequence[Probe], rule: EvidenceRule, classes: NDArray[np.int64], first: int
) -> tuple[Track, list[int]]:
    """Return the track after `probes`, and the sequence numbers of alarms. `classes` begin at `first`."""
    raised = []

    def verdicts(since: int, until: int) -> list[int]:
        return [int(each) for each in classes[max(0, since - first) : until - first + 1]]

    for probe in probes:
        track, alarm = advance(track, probe, rule, verdicts)
        if alarm is not None:
            raised.append(probe.seq)
    return track, raised


def main() -> None:
    """Print the rule's results on a bundle's cameras as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="a backdoored bundle, calibrated for the drop ratio")
    parser.add_argument("--clean", type=Path, required=True, help="npz with the scenes: images and labels")
    parser.add_argument("--trigger", required=True, help=f"sticker, or the trigger of one of {', '.join(MODELS)}")
    parser.add_argument("--drop-ratio", type=float, default=0.25)
    parser.add_argument("--every", type=int, default=1, help="check only every n-th frame")
    parser.add_argument("--cameras", type=int, default=200)
    parser.add_argument("--skip", type=int, default=0, help="pictures to skip at the beginning")
    parser.add_argument("--clean-frames", type=int, default=60)
    parser.add_argument("--trigger-frames", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=1, help="number of readings of the clean frames, in new orders")
    parser.add_argument("--cache", type=Path, help="npz that keeps the entropies, or provides them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    check_drop_ratio(arguments.drop_ratio)
    begun = time.monotonic()
    if arguments.cache is not None and arguments.cache.is_file():
        watched = Watched.load(arguments.cache)
    else:
        pipeline = Pipeline(load_bundle(arguments.bundle, torch.device("cpu")))
        pictures = read_pictures(arguments.clean, len(pipeline.bundle.settings.classes))
        chosen = np.arange(arguments.skip, min(len(pictures), arguments.skip + arguments.cameras))
        if not len(chosen):
            raise ConfigError(f"{arguments.clean}: expected more than {arguments.skip} pictures, got {len(pictures)}")
        watched = watch(
            pipeline, pictures.take(chosen), _trigger(arguments.trigger), arguments.drop_ratio, arguments.clean_frames,
            arguments.trigger_frames, arguments.seed,
        )  # fmt: skip
        if arguments.cache is not None:
            watched.save(arguments.cache)
    found = judge(watched, EvidenceRule(), target_of(watched), arguments.every, arguments.repeats, arguments.seed)
    taken = {"distinct_clean_frames": found.clean_frames // arguments.repeats, "seconds": time.monotonic() - begun}
    text = json.dumps(found.as_dict() | taken, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


def target_of(watched: Watched) -> int:
    """Return the class to which most stamped frames of other classes are assigned."""
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

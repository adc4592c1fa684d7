"""EOT-PGD on frames of 480 lines under the profiles `raw` and `video`, on the same scenes.

The attacker has all but the key: the chain, the network, and under `video` the fill and the codec, whose gradient is
estimated by BPDA. Each profile is attacked by itself, and the result is rounded to 8 bits. The answers come from the
chain as it runs. The attack on `raw` is also sent under `video`, and the reverse: an attacker could ignore the codec.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from lab.attacks import to_8_bits
from lab.attacks.coded import coded, coded_bpda
from lab.attacks.defences import defended
from lab.attacks.eot import eot_pgd
from lab.attacks.resubmission import shown
from lab.data import to_frames
from lab.experiments.scale.measure import CONDITIONS, scenes
from processors.bundle import Bundle
from processors.pipeline import Pipeline

SIZE: Final = 480, 640
EPS: Final = 0.03
DROP: Final = 0.25
STEPS: Final = 20
SAMPLES: Final = 4
TIMES: Final = 10


@dataclass(frozen=True)
class AttackRow:
    """The answers to one scene: the number of right ones, of `TIMES` under attack and of one without."""

    network: str
    scene: int
    clean_raw: int
    clean_video: int
    raw: int
    """Right answers under `raw` to the attack on `raw`."""
    video: int
    """Right answers under `video` to the attack on `video`."""
    raw_first: int
    """1 if the first of the answers is right."""
    video_first: int
    raw_sent_by_video: int
    """Right answers under `video` to the attack on `raw`."""
    video_sent_by_raw: int


def attacked(bundle: Bundle, network: str, first: int, count: int) -> list[AttackRow]:
    """Return the rows of `count` scenes from number `first`. A row does not depend on the other scenes."""
    pipeline = Pipeline(bundle)
    chains = {"raw": defended(pipeline, DROP), "video": coded(pipeline, DROP)}
    attackable = {"raw": chains["raw"], "video": coded_bpda(pipeline, DROP)}
    pictures = scenes(first + count, SIZE, CONDITIONS["usual"])
    rows = []
    for number in range(first, first + count):
        frame = to_frames(pictures.images[number : number + 1], bundle.device)
        label = torch.from_numpy(pictures.labels[number : number + 1])
        chance = torch.Generator().manual_seed(number)
        changed = {
            profile: to_8_bits(
                eot_pgd(chain, frame, label, None, eps=EPS, steps=STEPS, samples=SAMPLES, generator=chance)
            )
            for profile, chain in attackable.items()
        }
        right = {
            (shown_as, made_for): shown(chains[shown_as], some, label, times=TIMES, generator=chance)[:, 0].numpy()
            for shown_as in chains
            for made_for, some in changed.items()
        }
        clean = {name: int(shown(each, frame, label, times=1, generator=chance).sum()) for name, each in chains.items()}
        rows.append(
            AttackRow(
                network=network,
                scene=number,
                clean_raw=clean["raw"],
                clean_video=clean["video"],
                raw=int(right["raw", "raw"].sum()),
                video=int(right["video", "video"].sum()),
                raw_first=int(right["raw", "raw"][0]),
                video_first=int(right["video", "video"][0]),
                raw_sent_by_video=int(right["video", "raw"].sum()),
                video_sent_by_raw=int(right["raw", "video"].sum()),
            )
        )
    return rows

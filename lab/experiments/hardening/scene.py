"""What the fleet's hardened network withstands, beside the plain one it comes of.

    python -m lab.experiments.hardening.scene --out docs/results/hardening

Held-out scenes of 32 to 1,080 lines go through the pixel drop. `usual` ones are attacked by EOT-PGD that knows all but
the key, at the frame's own size, and sent ten times; `hard` ones (dark, noisy, blurred and small, as in
`lab.restoration.at_scale`) are only dropped. STRIP judges whole scenes, clean and with the sticker of the drills;
for the hardened network the attacker goes on from it as he did from the plain one: `python -m lab.backdoor.scene
--start scene --out runs/backdoor/scene-sticker-hardened`, whose bundle `--sick` names. A row that is there is not
measured again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from lab.attacks import to_8_bits
from lab.attacks.defences import defended
from lab.attacks.eot import eot_pgd
from lab.attacks.resubmission import shown
from lab.backdoor.catalogue import sticker_patch
from lab.backdoor.files import stamped_pictures
from lab.backdoor.poison import Poisoning
from lab.backdoor.scene import RATE, TARGET
from lab.data import LabelledPictures, to_frames
from lab.experiments.hardening.report import scene_page
from lab.experiments.hardening.rows import HardRow, SceneRow, StripRow
from lab.restoration.at_scale import CONDITIONS, RATIOS, scenes
from lab.results.csv_rows import read_rows, write_rows
from lab.strip.measure import check, strip_figures
from lab.training.scene import TEST_SEED
from lab.training.scene import scenes as places
from processors.bundle import Bundle, load_bundle, shipped_bundle
from processors.pipeline import Pipeline
from schemas.runtime.atomic_file import replacing

EPS: Final = 0.03
DROP: Final = 0.25
STEPS: Final = 20
SAMPLES: Final = 4
TIMES: Final = 10
PIXELS: Final = 2**18
"""Of a batch, unless one frame has more."""
SIZES: Final = {(32, 32): 500, (64, 64): 500, (240, 320): 150, (480, 640): 60, (1080, 1920): 20}
"""Height and width, and how many frames are attacked."""
HARD_SIZES: Final = {(32, 32): 1000, (64, 64): 1000, (240, 320): 300, (480, 640): 120, (1080, 1920): 30}
STRIP_SCENES: Final = 3_000
FIRST_TEST_CAMERA: Final = 900_000
"""Of STRIP's scenes, beyond those of every training."""


def attacked(bundle: Bundle, size: tuple[int, int], count: int) -> SceneRow:
    """Usual scenes of one size, clean and under the attack."""
    begun = time.monotonic()
    pictures = scenes(count, size, CONDITIONS["usual"])
    chain = defended(Pipeline(bundle), DROP)
    chance = torch.Generator().manual_seed(0)
    clean, answers = [], []
    for part in _parts(count, size):
        frames, labels = to_frames(pictures.images[part], bundle.device), torch.from_numpy(pictures.labels[part])
        clean.append(shown(chain, frames, labels, times=1, generator=chance)[0])
        changed = eot_pgd(chain, frames, labels, None, eps=EPS, steps=STEPS, samples=SAMPLES, generator=chance)
        answers.append(shown(chain, to_8_bits(changed), labels, times=TIMES, generator=chance))
    every = torch.cat(answers, 1)
    return SceneRow(
        bundle.model_id, *size, count, float(torch.cat(clean).float().mean()), float(every[0].float().mean()),
        float(every.all(0).float().mean()), time.monotonic() - begun,
    )  # fmt: skip


@torch.inference_mode()
def hard(bundle: Bundle, size: tuple[int, int], count: int) -> Iterator[HardRow]:
    """Hard scenes of one size at each drop ratio, and how often the network is right on them."""
    pictures = scenes(count, size, CONDITIONS["hard"])
    for drop in RATIOS:
        chain = defended(Pipeline(bundle), drop)
        chance = torch.Generator().manual_seed(0)
        right = 0
        for part in _parts(count, size):
            frames, labels = to_frames(pictures.images[part], bundle.device), torch.from_numpy(pictures.labels[part])
            right += int((chain(frames, chance).argmax(1) == labels).sum())
        yield HardRow(bundle.model_id, *size, drop, count, right)


def judged(name: str, sick: Bundle, clean: Bundle, test: LabelledPictures) -> StripRow:
    """STRIP's errors: false rejections of the clean network and of the sick one, false acceptances of the sick one."""
    poisoning = Poisoning(sticker_patch(), TARGET, RATE)
    stamped = stamped_pictures(test.take(np.flatnonzero(poisoning.attacks(test.labels))), poisoning)
    own = check(Pipeline(clean), test)
    honest = check(Pipeline(sick), test)
    figures: dict[str, Any] = strip_figures(honest, check(Pipeline(sick), stamped))
    return StripRow(
        name, clean.model_id, sick.model_id, len(test), float((own.verdict == own.label).mean()),
        float(own.flagged.mean()), float(own.passes.mean()), float((honest.verdict == honest.label).mean()),
        figures["attack_success"], figures["frr"], figures["far_effective"],
    )  # fmt: skip


def _parts(count: int, size: tuple[int, int]) -> list[slice]:
    step = max(1, min(256, PIXELS // (size[0] * size[1])))
    return [slice(start, start + step) for start in range(0, count, step)]


def main() -> None:
    """Measure what is missing, print it, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--hardened", type=Path, default=shipped_bundle("scene"))
    parser.add_argument("--plain", type=Path, default=shipped_bundle("scene-plain"))
    parser.add_argument("--sick", type=Path, default=Path("runs/backdoor/scene-sticker-hardened/bundle"))
    parser.add_argument("--share", type=float, default=1.0, help="of the usual number of frames")
    arguments = parser.parse_args()
    cpu = torch.device("cpu")
    plain, hardened = (load_bundle(folder, cpu) for folder in (arguments.plain, arguments.hardened))
    known = {plain.model_id, hardened.model_id}
    files = {kind: arguments.out / f"scene-{name}.csv" for kind, name in
             ((SceneRow, "attacked"), (HardRow, "hard"), (StripRow, "strip"))}  # fmt: skip
    rows = [row for row in read_rows(files[SceneRow], SceneRow) if row.model in known]
    darker = [row for row in read_rows(files[HardRow], HardRow) if row.model in known]
    strip = [row for row in read_rows(files[StripRow], StripRow) if row.model in known]

    def keep(found: object) -> None:
        print(found, flush=True)
        write_rows(files[SceneRow], rows, SceneRow)
        write_rows(files[HardRow], darker, HardRow)
        write_rows(files[StripRow], strip, StripRow)
        with replacing(arguments.out / "scene.md") as fresh:
            fresh.write_text(scene_page(rows, darker, strip) + "\n", encoding="utf-8")

    for bundle in (hardened, plain):
        for size, usual in SIZES.items():
            count = max(2, round(arguments.share * usual))
            if (bundle.model_id, *size, count) not in {(r.model, r.height, r.width, r.frames) for r in rows}:
                rows.append(attacked(bundle, size, count))
                keep(rows[-1])
        for size, usual in HARD_SIZES.items():
            count = max(2, round(arguments.share * usual))
            if (bundle.model_id, *size, count) not in {(r.model, r.height, r.width, r.frames) for r in darker}:
                darker += hard(bundle, size, count)
                keep(darker[-1])
    test = LabelledPictures("scenes", *places(TEST_SEED, STRIP_SCENES, first_camera=FIRST_TEST_CAMERA))
    sick = {"plain": (shipped_bundle("scene-sticker"), plain), "hardened": (arguments.sick, hardened)}
    for name, (folder, clean) in sick.items():
        if folder.is_dir() and name not in {row.name for row in strip}:
            strip.append(judged(name, load_bundle(folder, cpu), clean, test))
            keep(strip[-1])


if __name__ == "__main__":
    main()

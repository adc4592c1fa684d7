"""The golden batch: what it computes, and the comparison with the stored outputs.

The pictures are the 100 CIFAR-10 overlays of the shipped bundle, and a few simulated scenes. Each part covers one kind
of code: the judge, its gradient, the attacks, STRIP, the other statistics of probes, the evidence of cameras,
certificates, the rows of scenes, and one hardening. Other kinds have none.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.attacks import defended, eot_pgd, make_attack, random_targets, shown, square, transfer, undefended
from lab.attacks.contract import margins
from lab.attacks.eot import loss_gradient
from lab.cache import Cache
from lab.data import LabelledPictures, to_frames
from lab.evidence.episodes import MOST, clean_starts, episodes
from lab.evidence.scores import Limits, Scores
from lab.evidence.still_scenes import Camera, SceneScores, appearances_with_alarm, scenes_of, still_episodes
from lab.experiments.certified.measure import Subject, certified
from lab.experiments.codefend.scores import TOGETHER, Numbers, scores
from lab.experiments.codefend.subjects import Subject as Sick
from lab.experiments.hardening.scene import attacked, hard, scene_attacks, withstood
from lab.experiments.scale.measure import CONDITIONS, scenes
from lab.hardening.processes import Processes
from lab.hardening.settings import HardenSettings
from lab.hardening.train import Training
from lab.hardening.training_batches import PictureBatches
from lab.red_team.chain import chain, few, unknown
from lab.repair.checkpoints import Checkpoint
from lab.repair.inputs import trainable_copy
from lab.strip.combined import combined, fit
from lab.strip.measure import check
from lab.strip.table import write_strip_table
from lab.strip.typicality import feature_layers, feature_values, fitted, write_features
from processors.bundle import Bundle, load_bundle, shipped_bundle
from processors.bundle.strip_table import LAYER_DISAGREEMENT, TYPICALITY
from processors.pipeline import Pipeline
from processors.stages.scenes import SIDE
from processors.stages.typicality import channel_means
from schemas.evidence.alarms import rule_of
from schemas.evidence.rule import EvidenceRule

Outputs = Mapping[str, NDArray[np.float16]]
FILE: Final = Path(__file__).with_name("golden.npz")
RATIO: Final = 0.25
EPS: Final = 8 / 255
FEW: Final = 4
"""Pictures whose gradient is computed."""
UNSURE: Final = (0, 9, 11, 63)
"""Indices of the attacked pictures. The network is unsure of them: the loss of a sure label is close to zero, and the
rounding of the processor decides the sign of its gradient."""
GENTLE: Final = 1e-4
"""Learning rate of the hardening, low enough that rounding is not amplified."""


@dataclass(frozen=True)
class Part:
    """A part of the golden batch, and the tolerance of its outputs.

    Processors round sums differently. A picture near a boundary may therefore differ: at most `share` of the values of
    an output deviate by more than `most`.
    """

    name: str
    compute: Callable[[], Mapping[str, Tensor]]
    most: float
    share: float = 0.0


def judge() -> Mapping[str, Tensor]:
    """Return the probabilities behind the drop and the restorer: of 100 pictures, and of scenes of three sizes."""
    found = {}
    for name in ("cifar10", "cifar10-hardened"):
        frames, masks = _frames(), _chance(1)
        found[name] = _probabilities(chain(_pipeline(name), unknown(_bundle(name), RATIO)), frames, masks)
    for size, count in (((32, 32), 8), ((96, 128), 4), ((240, 320), 1)):
        pictures = scenes(count, size, CONDITIONS["hard"])
        behind = defended(_pipeline("scene"), RATIO)
        found[f"scene/{size[0]}"] = _probabilities(behind, to_frames(pictures.images, torch.device("cpu")), _chance(2))
    return found


def gradient() -> Mapping[str, Tensor]:
    """Return the gradient of the mean loss over several masks, each divided by its largest value."""
    network, pictures = _pipeline("cifar10-hardened"), _frames()[:FEW]
    labels = network.bundle.logits(pictures).argmax(1)
    found = loss_gradient(chain(network, unknown(network.bundle, RATIO)), pictures, labels, 4, _chance(3))
    scene = scenes(1, (96, 128), CONDITIONS["usual"])
    frames = to_frames(scene.images, torch.device("cpu"))
    behind = defended(_pipeline("scene"), RATIO)
    with torch.no_grad():
        second = behind(frames, _chance(3)).topk(2).indices[:, 1]
    # The network is sure of these scenes: the loss of their own label is close to zero, and its gradient is rounding.
    other = loss_gradient(behind, frames, second, 2, _chance(3))
    return {"cifar10-hardened": _scaled(found), "scene/96": _scaled(other)}


def attacks() -> Mapping[str, Tensor]:
    """Return the changes that the attacks make to four pictures, divided by the largest change."""
    network = _pipeline("cifar10")
    frames, bare = _frames()[list(UNSURE)], undefended(network.bundle)
    labels = network.bundle.logits(frames).argmax(1)
    targets = random_targets(labels, 10, _chance(4))
    found = {
        name: make_attack(name, EPS)(network.bundle.logits, frames, labels, None, _chance(5))
        for name in ("fgsm", "ifgsm", "pgd")
    }
    for name, drawing in (("fleet", unknown(network.bundle, RATIO)), ("key-known", few(network.bundle, RATIO, 1, 1))):
        behind = chain(network, drawing)
        found[f"eot/{name}"] = eot_pgd(behind, frames, labels, None, eps=EPS, steps=2, samples=2, generator=_chance(6))
    found["eot/targeted"] = eot_pgd(
        bare, frames, labels, targets, eps=0.5, steps=2, samples=1, generator=_chance(6), norm="l2", step=0.5,
        momentum=0.75, random_start=False,
    )  # fmt: skip
    found["square"] = square(bare, frames, labels, None, eps=EPS, queries=10, generator=_chance(7))
    found["transfer"] = transfer(
        [network.bundle.logits], frames, labels, None, eps=EPS, generator=_chance(8), steps=5
    )  # fmt: skip
    changes = {name: _scaled(each.detach() - frames) for name, each in found.items()}
    right = shown(chain(network, unknown(network.bundle, RATIO)), frames, labels, times=3, generator=_chance(9))
    return {**changes, "shown": right.float()}


def strip() -> Mapping[str, Tensor]:
    """Return the entropies of 16 pictures over all overlays, and the passes of the sequential test."""
    pictures = LabelledPictures("golden", _pictures()[:16], np.zeros(16, np.int64))
    whole, stopped = check(_pipeline("cifar10"), pictures), check(_pipeline("cifar10"), pictures, sequential=True)
    return {"bits": torch.from_numpy(whole.bits), "passes": torch.from_numpy(stopped.passes)}


def typicality() -> Mapping[str, Tensor]:
    """Return the typicality of 16 pictures in octaves, by the features of all of them."""
    found = torch.from_numpy(_by_features()[TYPICALITY]).clamp_min(2.0**-20).log2()
    # Networks of other kinds have tokens or plain numbers in place of maps.
    means = [channel_means(values) for values in (torch.ones(1, 2, 3), torch.ones(1, 3))]
    return {"octaves": found, "means": torch.stack(means)}


def layer_disagreement() -> Mapping[str, Tensor]:
    """Return the doubt of earlier layers in 16 pictures in octaves, and the numbers of layers of two networks."""
    bundle = _bundle("cifar10")
    # A function is a network whose layers cannot be seen.
    layers = [feature_layers(each) for each in (bundle, replace(bundle, network=lambda x: x.mean((2, 3))))]
    counts = torch.tensor([[len(last), len(earlier)] for last, earlier in layers])
    return {"octaves": torch.from_numpy(_by_features()[LAYER_DISAGREEMENT]).log2(), "layers": counts}


def _by_features() -> Mapping[str, NDArray[np.float64]]:
    usual = fitted(_pipeline("cifar10"), _labelled())
    assert usual is not None
    return feature_values(_pipeline("cifar10"), usual.features, _labelled().take(np.arange(16)))


def p_values() -> Mapping[str, Tensor]:
    """Return the rarity of 8 pictures by all statistics, by a bundle that is fitted to 90 others and loaded."""
    pictures = _labelled().take(np.arange(90))
    strip = _bundle("cifar10").settings.strip
    assert strip is not None
    found = fit(_pipeline("cifar10"), pictures, np.array([], np.intp))
    assert found.statistics.features is not None
    with TemporaryDirectory() as place:
        own = Path(shutil.copytree(shipped_bundle("cifar10"), Path(place) / "cifar10"))
        tables = {
            "typicality": write_features(own, found.statistics.features),
            "combined": combined(found.known, 0.1, found.norms),
        }
        write_strip_table(own, strip.model_copy(update=tables))
        pipeline = Pipeline(load_bundle(own, torch.device("cpu")))
    frames = pipeline.probe_input(_frames()[90:98])
    bits = pipeline.strip(frames).entropy_bits.double().numpy()
    judged = pipeline.p_values(frames, bits, np.arange(16, dtype=np.uint64).reshape(8, 2))
    return {"octaves": -torch.from_numpy(judged.values).log2(), "doubts": pipeline.doubt(frames).log2() / 64}


def detection() -> Mapping[str, Tensor]:
    """Return the p-values of 8 pictures in octaves, as the experiment on backdoors computes them.

    The defender has the pictures and their mirror images.
    """
    pictures = np.concatenate([_pictures(), _pictures()[:, :, ::-1]])
    frames = to_frames(pictures, torch.device("cpu"))
    with torch.inference_mode():
        clean = LabelledPictures("golden", pictures, _bundle("cifar10").logits(frames).argmax(1).numpy())
    some = clean.take(np.arange(90, 98))
    task = SimpleNamespace(held_out=clean, test=some)
    subject = SimpleNamespace(name="golden", bundle=_bundle("cifar10"), task=task, stamped=some, state="")
    with TemporaryDirectory() as place:
        found = scores(cast(Sick, subject), Numbers(len(some), len(some)), Cache(Path(place)))
    return {"octaves": -torch.from_numpy(found.clean.values[TOGETHER]).log2()}


def certificates() -> Mapping[str, Tensor]:
    """Return the shares of two small scenes that are certified and keep their label, and the passes."""
    subject = Subject("scene", "scenes-64x48", 4, 4, count=2, windows=2)
    with TemporaryDirectory() as place:
        row = certified(subject, shipped_bundle("scene"), None, Cache(Path(place)), "golden")
    return {"row": torch.tensor([row.certified, row.clean, row.passes])}


def scene_rows() -> Mapping[str, Tensor]:
    """Return the figures of the hardening's rows over a few frames."""
    under = attacked(_bundle("scene-plain"), (32, 32), 3)
    right = [row.right for row in hard(_bundle("scene-plain"), (32, 32), 20)]
    # The hardened network withstands every attack at this bound, on any machine.
    every = withstood(_bundle("scene"), (32, 32), 2, "usual", 0.02)
    return {
        "attacked": torch.tensor([under.clean, under.attacked, under.resubmitted]),
        "withstood": torch.tensor([every.clean, every.attacked, every.resubmitted, every.worst]),
        "hard": torch.tensor(right),
    }


def margins_of_scenes() -> Mapping[str, Tensor]:
    """Return the attacker's mean margin on two hard scenes after each attack on the hardened network, as a share of the
    margin before."""
    behind, pictures = defended(_pipeline("scene"), RATIO), scenes(2, (32, 32), CONDITIONS["hard"])
    frames, labels = to_frames(pictures.images, torch.device("cpu")), torch.from_numpy(pictures.labels)
    every = [frames, *(attack(frames, labels) for attack in scene_attacks(behind, EPS, _chance(10)))]
    with torch.no_grad():
        before, *after = (margins(behind(each, _chance(11)), labels, None).mean() for each in every)
    return {"margins": torch.stack(after) / before}


def hardening() -> Mapping[str, Tensor]:
    """Return the changes that one epoch of hardening on 16 pictures makes to the CIFAR-10 network.

    These are the changes of its last weights and of its logits, each divided by the largest, and the logarithms of
    their norms and of the norm of the first weights' change. At the usual rate of .1, two steps on so few pictures
    diverge: then rounding alone, such as another number of threads, decides the network. At `GENTLE`, the changes are
    close to the gradient.
    """
    bundle, pictures = _bundle("cifar10"), _pictures()[:24]
    labels = bundle.logits(_frames()[:24]).argmax(1)
    batches = PictureBatches(LabelledPictures("golden", pictures[:16], labels[:16].numpy()), 8, 0)
    settings = HardenSettings(epochs=1, batch=8, eps=EPS, rate=GENTLE)
    held_out = _frames()[16:24], labels[16:]
    before = trainable_copy(bundle)
    training = Training(
        bundle, trainable_copy(bundle), batches, held_out, settings, checkpoint=Checkpoint(None, ""),
        processes=Processes(), report=lambda line: None, advance=lambda count: None,
    )  # fmt: skip
    after = training.run()
    frames = bundle.prepare(held_out[0])
    with torch.no_grad():
        weights = [now - was for now, was in zip(after.parameters(), before.parameters(), strict=True)]
        found = {"last": weights[-1], "logits": after(frames) - before(frames)}
    sizes = torch.stack([each.norm() for each in (*weights[:1], *found.values())]).log()
    return {name: each / each.abs().max() for name, each in found.items()} | {"sizes": sizes}


def evidence() -> Mapping[str, Tensor]:
    """Return the probes until the alarm in simulated episodes, and the alarms of clean starts, by both kinds."""
    generator, found = np.random.default_rng(11), dict[str, Tensor]()
    verdict = generator.integers(0, 2, 400)
    clean = Scores(0.8 * 2 ** generator.normal(0, 0.3, 400), generator.random(400), verdict)
    attacked = Scores(0.8 * 2 ** -generator.normal(5, 1.5, 400), generator.random(400) ** 6, verdict)
    low = Scores(0.01 * 2 ** generator.normal(0, 0.2, 400), generator.random(400) ** 6, np.zeros(400, np.int64))
    rule = EvidenceRule()
    for limits in (Limits(0.1), Limits(0.1, 0.01)):
        shown = episodes(clean, attacked, limits, rule, count=32).probes
        found[f"{limits.kind}/probes"] = torch.from_numpy(np.minimum(shown, MOST))
        for name, pictures in (("clean", clean), ("low", low)):
            found[f"{limits.kind}/{name}"] = torch.tensor([float(clean_starts(pictures, limits, rule, count=16))])
    return found


def evidence_of_scenes() -> Mapping[str, Tensor]:
    """Return the false alarms of simulated cameras that stay at scenes, and the probes until they find attacks.

    The first shows new scenes, the second four in turn, the third four in turn of which one changes for good.
    """
    generator, count, frames = np.random.default_rng(12), 60, 3
    size, limits, rule = count * frames, Limits(0.1, 0.01), EvidenceRule()
    coarse = np.repeat(generator.normal(size=(count, 3, SIDE**2)), frames, 0).astype(np.float32)

    def scored(p_value: NDArray[np.float64]) -> SceneScores:
        return SceneScores(Scores(2 * p_value, p_value, np.zeros(size, np.int64)), frames, coarse)

    usual = generator.random(size) / 2 + 0.2
    unusual = np.where(np.arange(size) < size // 4, 1e-4, usual)
    triggered = scored(np.where(np.arange(size) < size // 2, 1e-4, usual))
    alarms = appearances_with_alarm(scored(unusual), limits, rule, 40, probes=10_000)
    in_turn = appearances_with_alarm(scored(unusual), limits, rule, 15, views=4, probes=10_000)
    starts = np.arange(count) % 5 == 0
    new, known = (
        still_episodes(scored(usual), scored(usual), triggered, starts, limits, rule, stay, views=views).probes
        for stay, views in ((40, 0), (15, 4))
    )
    camera, shown = Camera(rule_of(limits.kind, rule)), scenes_of(scored(usual), limits, rule)[:4]
    changed = [scenes_of(triggered, limits, rule)[0], *shown[1:]]
    raised = [camera.raises_alarm(scene[place % frames]) for scene in shown * 3 + changed * 3 for place in range(15)]
    higher = EvidenceRule(entropy_octaves=1.0)
    by_strip = appearances_with_alarm(scored(unusual), Limits(0.7), higher, 40, probes=10_000)
    return {
        "alarms": torch.from_numpy(alarms),
        "probes": torch.from_numpy(np.minimum(new, MOST)),
        "alarms, scenes in turn": torch.from_numpy(in_turn),
        "probes, scenes in turn": torch.from_numpy(np.minimum(known, MOST)),
        "alarms of a changed view": torch.tensor(raised, dtype=torch.float64),
        "alarms by STRIP": torch.from_numpy(by_strip),
    }


PARTS: Final = (
    Part("judge", judge, 0.004),
    Part("gradient", gradient, 0.004, 0.01),
    Part("attacks", attacks, 0.01, 0.04),
    Part("strip", strip, 0.01),
    Part("typicality", typicality, 0.05),
    Part("layer disagreement", layer_disagreement, 0.05),
    Part("five p-values", p_values, 0.1, 0.1),
    Part("detection by five", detection, 0.1, 0.1),
    Part("evidence", evidence, 0.5, 0.1),
    Part("evidence of known scenes", evidence_of_scenes, 0.5, 0.1),
    Part("certificates", certificates, 0.01),
    Part("scene-rows", scene_rows, 0.02),
    Part("scene attacks", margins_of_scenes, 0.04),
    Part("hardening", hardening, 0.05),
)


def computed(parts: tuple[Part, ...] = PARTS) -> Outputs:
    """Return the outputs of all parts by `part/name`, rounded to half precision."""
    return {
        f"{part.name}/{name}": value.detach().numpy().astype(np.float16)
        for part in parts
        for name, value in part.compute().items()
    }


def stored(file: Path = FILE) -> Outputs:
    """Return the stored outputs."""
    with np.load(file) as archive:
        return {name: archive[name] for name in archive.files}


def parts_of(outputs: Outputs) -> tuple[Part, ...]:
    """Return the parts that these outputs have: those of older code may lack new ones."""
    return tuple(part for part in PARTS if any(name.startswith(f"{part.name}/") for name in outputs))


def deviations(found: Outputs, wanted: Outputs, parts: tuple[Part, ...] = PARTS) -> dict[str, str]:
    """Return the parts whose outputs differ beyond the tolerance, with the reason."""
    wrong = {}
    for part in parts:
        names = {name for name in (*found, *wanted) if name.startswith(f"{part.name}/")}
        for name in sorted(names):
            one, other = found.get(name), wanted.get(name)
            if one is None or other is None or one.shape != other.shape:
                wrong[part.name] = f"{name}: expected {_shape(other)}, got {_shape(one)}"
                break
            far = np.abs(one.astype(np.float32) - other.astype(np.float32)) > part.most
            if far.mean() > part.share:
                wrong[part.name] = f"{name}: {far.mean():.1%} of the values deviate by more than {part.most:g}"
                break
    return wrong


def _shape(values: NDArray[np.float16] | None) -> str:
    return "nothing" if values is None else str(values.shape)


def _scaled(values: Tensor) -> Tensor:
    return values / values.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)


@torch.no_grad()
def _probabilities(
    behind: Callable[[Tensor, torch.Generator], Tensor], frames: Tensor, chance: torch.Generator
) -> Tensor:
    return behind(frames, chance).softmax(1)


def _pictures() -> NDArray[np.uint8]:
    pictures: NDArray[np.uint8] = np.load(shipped_bundle("cifar10") / "overlays.npy")
    return pictures


@torch.inference_mode()
def _labelled() -> LabelledPictures:
    return LabelledPictures("golden", _pictures(), _bundle("cifar10").logits(_frames()).argmax(1).numpy())


def _frames() -> Tensor:
    return to_frames(_pictures(), torch.device("cpu"))


def _chance(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def _bundle(name: str) -> Bundle:
    return load_bundle(shipped_bundle(name), torch.device("cpu"))


@cache
def _pipeline(name: str) -> Pipeline:
    return Pipeline(_bundle(name))

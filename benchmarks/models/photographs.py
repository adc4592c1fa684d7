"""A network on photographs, whole and behind the drop: `python -m benchmarks.models.photographs FOLDER --json FILE`.

Each picture goes to the network whole (`bare`), and behind the drop by the profiles `raw` and `video` at several
ratios, under `--repeats` random masks each. `video` sends it as the key frame of a group. FOLDER holds one sub-folder
for each class, with the name or the number of the class. With `--labels name`, the number of the class ends the file's
name. Without labels, agreement with the bare network's class replaces accuracy. `--video` adds every `--every`-th frame
of the sample videos, as agreement.

Intervals of 95 % resample the pictures. The interval of a difference is paired, because both networks classify the same
pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.bytes.ways import read
from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.data_sets import sample_videos
from benchmarks.harness.document import report
from lab.attacks.coded import coded, coded_bpda
from lab.attacks.contract import Defended
from lab.attacks.defences import defended, undefended
from lab.data import to_frames
from lab.results.markdown import markdown
from lab.statistics import Interval, difference_interval, share_interval
from processors.bundle import Bundle, load_bundle
from processors.pipeline import Pipeline
from schemas.errors import ConfigError
from schemas.pixels.packing import Picture
from schemas.runtime.atomic_file import write_text

Labels = Literal["folder", "name", "none"]
RATIOS: Final = (0.25, 0.5, 0.75)
SUFFIXES: Final = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
_MOST_OF_A_VIDEO: Final = 100


class Photograph(NamedTuple):
    """A picture (H, W, 3) uint8, and its class; -1 without a label."""

    picture: Picture
    label: int


@dataclass(frozen=True)
class Row:
    """The share of right answers, or of answers that agree with the bare network, over one set of pictures."""

    pictures: str
    figure: Literal["accuracy", "agreement"]
    count: int
    profile: str
    drop: float
    share: Interval
    over_bare: float
    """The share ÷ the bare network's."""
    over_raw: float | None
    """Under `video`: the share ÷ that of `raw`."""
    more: Interval
    """The paired difference: under `video` to `raw`, under `raw` to the bare network."""


def photographs(folder: Path, labels: Labels, classes: Sequence[str]) -> Iterator[Photograph]:
    """Yield the pictures of a folder, in the order of their names. Raises ConfigError for an unknown class."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise ConfigError(f"{folder}: expected pictures ({', '.join(sorted(SUFFIXES))}), got none")
    for file in files:
        label = -1
        if labels != "none":
            label = _class(file, file.parent.name if labels == "folder" else file.stem.rpartition("_")[2], classes)
        with Image.open(file) as image:
            picture: Picture = np.frombuffer(image.convert("RGB").tobytes(), dtype=np.uint8)
            yield Photograph(picture.reshape(image.height, image.width, 3), label)


def _class(file: Path, name: str, classes: Sequence[str]) -> int:
    if name in classes:
        return list(classes).index(name)
    if not name.isdigit() or int(name) >= len(classes):
        raise ConfigError(f"{file}: expected a class by name or number (0 to {len(classes) - 1}), got {name!r}")
    return int(name)


def frames_of(video: Path, every: int) -> Iterator[Photograph]:
    """Yield every N-th frame of a video."""
    for frame in islice(read(video, 0), 0, every * _MOST_OF_A_VIDEO, every):
        yield Photograph(frame.to_ndarray(format="rgb24").astype(np.uint8), -1)


def answers(bundle: Bundle, shown: Sequence[Photograph], repeats: int) -> dict[tuple[str, float], NDArray[np.int64]]:
    """Return the classes by profile and ratio, (repeats, n) each. `("bare", 0)` is the network on whole pictures."""
    pipeline, bare = Pipeline(bundle), undefended(bundle)
    found: dict[tuple[str, float], list[list[int]]] = {("bare", 0.0): [[]]}
    for number, (picture, _) in enumerate(shown):
        frame = to_frames(picture[None], bundle.device)
        found["bare", 0.0][0].append(_answer(bare, frame, number))
        for drop in RATIOS:
            for profile, chain in (("raw", defended(pipeline, drop)), ("video", _video(pipeline, drop, picture))):
                rows = found.setdefault((profile, drop), [[] for _ in range(repeats)])
                for repeat, row in enumerate(rows):
                    # Both profiles use the same mask.
                    row.append(_answer(chain, frame, number * repeats + repeat))
    return {key: np.array(rows, np.int64) for key, rows in found.items()}


@torch.no_grad()
def _answer(chain: Defended, frame: torch.Tensor, seed: int) -> int:
    return int(chain(frame, torch.Generator().manual_seed(seed)).argmax(1))


def _video(pipeline: Pipeline, drop: float, picture: Picture) -> Defended:
    """Return the chain for a decoded picture: the processor resamples planes only where they shrink."""
    height, width, _ = picture.shape
    return (coded if pipeline.scales(height, width) else coded_bpda)(pipeline, drop)


def rows(name: str, bundle: Bundle, shown: Sequence[Photograph], repeats: int) -> list[Row]:
    """Return the rows of one set of pictures: its accuracy if all pictures have a label, and its agreement."""
    labels = np.array([each.label for each in shown])
    found = answers(bundle, shown, repeats)
    bare = found["bare", 0.0]
    made: list[Row] = []
    if (labels >= 0).all():
        made += _rows(name, "accuracy", {key: each == labels for key, each in found.items()})
    made += _rows(name, "agreement", {key: each == bare for key, each in found.items()})
    return made


def _rows(
    name: str, figure: Literal["accuracy", "agreement"], right: dict[tuple[str, float], NDArray[np.bool_]]
) -> Iterator[Row]:
    mean = {key: each.mean(0, dtype=np.float64) for key, each in right.items()}
    whole = mean["bare", 0.0]
    for (profile, drop), each in right.items():
        share = share_interval(each)
        own = mean[profile, drop]
        than = mean["raw", drop] if profile == "video" else whole
        yield Row(
            name, figure, len(own), profile, drop, share, _ratio(own, whole),
            _ratio(own, than) if profile == "video" else None, difference_interval(own, than),
        )  # fmt: skip


def _ratio(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    return float(ours.sum() / theirs.sum()) if theirs.any() else float("nan")


def page(result: dict[str, Any]) -> str:
    """Return the page of the results."""
    lines = [
        f"# {result['network']} on photographs",
        f"Made by `{result['command']}`; the figures are in [photographs.json](photographs.json). "
        f"{result['about']}".strip(),
        "`bare` is the network on whole pictures. `raw` and `video` drop a share r of the pixels; both meet the same "
        f"masks, {result['repeats']} for each picture. `video` sends each picture as the key frame of a group. "
        "Agreement is the share of answers with the class that the bare network gives, right or wrong. The "
        "difference is to `bare` under `raw`, and to `raw` under `video`, with the paired interval of 95 %.",
        markdown(
            ["pictures", "n", "figure", "profile", "r", "share [95 %]", "÷ `bare`", "÷ `raw`", "difference [95 %]"],
            (
                [
                    row["pictures"], str(row["count"]), row["figure"], f"`{row['profile']}`", f"{row['drop']:g}",
                    _interval(row["share"]), f"{row['over_bare']:.3f}",
                    "" if row["over_raw"] is None else f"{row['over_raw']:.3f}", _interval(row["more"]),
                ]
                for row in result["rows"] if row["profile"] != "bare" or row["figure"] == "accuracy"
            ),
        ),
    ]  # fmt: skip
    return "\n\n".join(lines) + "\n"


def _interval(found: Sequence[float]) -> str:
    value, low, high = found
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    """Measure, print, and write the JSON with its page."""
    options = command_line(
        __doc__,
        folder=Option(Path, "folder of photographs", several="*", positional=True),
        bundle=Option(Path, "a network, as by `pointillist bundle create --imagenet`", required=True),
        labels=Option("folder", "source of the labels", choices=get_args(Labels)),
        repeats=Option(4, "masks for each picture and ratio"),
        video=Option(False, "also frames of the sample videos"),
        every=Option(10, "every N-th frame of a video"),
        about=Option("", "a sentence about the pictures, for the page"),
        json=Path,
    )
    torch.set_num_threads(1)
    bundle = load_bundle(options.bundle, torch.device("cpu"))
    sets = [
        (folder.name, list(photographs(folder, options.labels, bundle.settings.classes))) for folder in options.folder
    ]
    if options.video:
        sets += [(video.name, list(frames_of(video, options.every))) for video in sample_videos()]
    if not sets:
        raise SystemExit("photographs: expected a folder or --video, got neither")
    found = [asdict(row) for name, shown in sets for row in rows(name, bundle, shown, options.repeats)]
    given = f" FOLDER --labels {options.labels}" if options.folder else ""
    given += f" --video --every {options.every}" if options.video else ""
    result = {
        "command": f"python -m benchmarks.models.photographs{given} --bundle BUNDLE --repeats {options.repeats}",
        "about": options.about,
        "network": bundle.settings.name,
        "repeats": options.repeats,
        "rows": found,
    }
    report(result, options.json)
    if options.json:
        write_text(options.json.with_suffix(".md"), page(result))


if __name__ == "__main__":
    main()

"""The page of robustness: defences against attacks, from results of the red team and of three papers' experiments."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from lab.experiments.harness.store import Store
from lab.results.markdown import markdown

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"

Cells = dict[str, str]
Row = tuple[str, str, str, str]


def rendered() -> str:
    """Return the figures with their targets. A missing result file is marked as such."""
    rows: list[Row] = []
    for place, command, rows_of in SOURCES:
        if (RESULTS / place).is_file() or Store((RESULTS / place).parent).texts(Path(place).name):
            rows += ((what, asked, found, f"`{command}`") for what, asked, found in rows_of(RESULTS / place))
        else:
            rows.append((place, "", "not measured", f"`{command}`"))
    return markdown(["what", "asked for", "measured", "command"], [*rows, *_judged()])


def _judged() -> Iterator[Row]:
    """Yield one line for each network that the red team has evaluated."""
    for file in sorted((RESULTS / "red-team").glob("*/result.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        settings, checklist = found["settings"], list(found["checklist"].values())
        low, high = found["intervals"]["worst_case_accuracy"]
        hardened = "hardened" in settings["bundle"]
        asked = {"8/255": "≥ .30 (aim .45)", "0.01": "≥ .58 (aim .68)"}[_eps(found["eps"])] if hardened else "–"
        yield (
            f"`{settings['bundle'].partition('+')[0]}`, {settings['defence']}, r = {settings['drop']}, "
            f"worst case within L∞ {_eps(found['eps'])}",
            asked,
            f"{found['worst_case_accuracy']:.3f} [{low:.3f}, {high:.3f}] of {found['images']}, clean "
            f"{found['clean_accuracy']:.3f}; checklist: {checklist.count('passed')} passed, "
            f"{checklist.count('failed')} failed, {checklist.count('not run')} not run",
            f"see [the page](red-team/{file.parent.name}/README.md)",
        )


def _eps(eps: float) -> str:
    return "8/255" if abs(eps - 8 / 255) < 1e-9 else f"{eps:g}"


def _rows(place: Path) -> list[Cells]:
    """Records of a table: `place` is the experiment's folder with the table's name below it, or a CSV file."""
    if place.suffix != ".csv":
        return Store(place.parent).texts(place.name)
    with place.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _parity(file: Path) -> Iterator[tuple[str, str, str]]:
    rows = _rows(file)
    same = [row for row in rows if row["success_foolbox"] and row["attack"] not in ("rotation", "lbfgs")]
    points = max(100 * (float(row["success_foolbox"]) - float(row["success"])) for row in same)
    far = max(float(row["l2"]) / float(row["l2_foolbox"]) for row in same)
    yield (
        f"{len(same)} attacks beside foolbox's (rotation apart: it fills corners otherwise)",
        "within 1 point, L2 within 5 %",
        f"at most {points:.1f} points fewer, L2 at most {100 * (far - 1):.1f} % larger",
    )
    for name in ("lbfgs", "jsma"):
        row = next(row for row in rows if row["attack"] == name)
        yield f"`{name}` on the undefended network", "≥ .99", f"{float(row['success']):.3f} of {row['images']}"


def _broken(file: Path) -> Iterator[tuple[str, str, str]]:
    rows = _rows(file)
    most = max(int(row["images"]) for row in rows)
    main = [row for row in rows if int(row["images"]) == most]
    worst = max(main, key=lambda row: float(row["attacked"]))
    yield (
        f"{len(main)} broken defences broken again, L∞ 8/255: accuracy that is left",
        "≤ .05 each (aim .01)",
        f"at most {float(worst['attacked']):.4f} (`{worst['defence']}`), {most} pictures",
    )


_ASKED_AIGAN = {"mnist": "≥ .985 (aim .995)", "cifar10": "≥ .90 (aim .97)", "scene": "–"}


def _aigan(file: Path) -> Iterator[tuple[str, str, str]]:
    for row in _rows(file):
        if (row["attack"], row["defence"], row["target"]) == ("AI-GAN", "none", "-1"):
            black = row["knowledge"] != "white-box"
            asked = {"mnist": "≥ .95", "cifar10": "≥ .75"}.get(row["task"], "–") if black else _ASKED_AIGAN[row["task"]]
            share = f"{float(row['share']):.3f} [{float(row['low']):.3f}, {float(row['high']):.3f}] of {row['images']}"
            yield (
                f"AI-GAN, {row['task']}, {row['knowledge']}, L∞ {float(row['eps']):.3f}: targeted success",
                asked,
                share,
            )


def _aigan_times(file: Path) -> Iterator[tuple[str, str, str]]:
    seconds = {(row["task"], row["attack"]): float(row["seconds"]) for row in _rows(file)}
    tasks = sorted({task for task, attack in seconds if attack == "PGD-40"})
    found = ", ".join(f"{task} {seconds[task, 'PGD-40'] / seconds[task, 'AI-GAN']:.0f}" for task in tasks)
    yield "time of PGD-40 ÷ AI-GAN, one run", "≥ 70 (aim 150)", found


_UNLIKE = {
    "mnist-cq2-attacked": " (trained against attacks, as the paper's was not)",
    "mnist-cq2-steep": " (a layer 20 × as steep as the paper's, whose gradient vanishes)",
}


def _qusecnets(file: Path) -> Iterator[tuple[str, str, str]]:
    rows = _rows(file)
    for name in sorted({row["subject"] for row in rows if row["subject"].startswith("mnist-cq")}):
        own = [row for row in rows if row["subject"] == name]
        for attack, label, asked in (
            ("fgsm", "FGSM .3, white-box", "≥ .975 (aim .985)"),
            ("worst", "worst of all attacks within .3", "measured"),
        ):
            for row in own:
                if row["attack"] == attack and row["eps"] == "0.3":
                    yield f"QuSecNets, `{name}`{_UNLIKE.get(name, '')}: {label}", asked, _share(row)


def _share(row: Cells) -> str:
    return f"{float(row['accuracy']):.3f} [{float(row['ci_low']):.3f}, {float(row['ci_high']):.3f}] of {row['n']}"


def _preprocessing(file: Path) -> Iterator[tuple[str, str, str]]:
    ours = ("cifar10", "ours")
    kept = next(row for row in _rows(file.with_name("variance")) if (row["subject"], row["defence"]) == ours)
    yield "preprocessing, CIFAR-10: clean accuracy kept", "≥ .95", _share(kept)
    rows = [row for row in _rows(file) if (row["subject"], row["defence"]) == ours]
    for attack, asked in (
        ("bpda", "≥ .70"),
        ("eot-clean", "measured"),
        ("eot-current", "measured"),
        ("eot-1", "measured"),
    ):
        for row in rows:
            if row["attack"] == attack:
                yield f"the same under {row['label']}", asked, _share(row)


def _live(file: Path) -> Iterator[tuple[str, str, str]]:
    for figures in json.loads(file.read_text(encoding="utf-8"))["figures"]:
        size = "×".join(map(str, figures["size"]))
        way = {name: figures[name] for name in ("bare", "plain", "hardened")}
        yield (
            f"live attack on 4 of 16 cameras, {size}: accuracy of the bare network / plain behind the drop / hardened",
            "hardened ≥ 1.5 × plain; alert ≤ 30 s; 0 lost",
            " / ".join(f"{found['accuracy']:.3f}" for found in way.values())
            + f" ({figures['hardened_over_plain']:.2f} ×), slowest alert "
            f"{max(way[name]['slowest_alert_s'] for name in ('bare', 'plain')):.1f} s, "
            f"{sum(found['frames_lost'] for found in way.values())} lost",
        )


def _stages(file: Path) -> Iterator[tuple[str, str, str]]:
    for row in json.loads(file.read_text(encoding="utf-8"))["rows"]:
        size = f"{row['width']}×{row['height']}"
        yield f"stages of a bundle on ÷ off, frames/s of the device, {size}", "≥ .7 (aim .9)", f"{row['ratio']:.2f}"


def _scene(file: Path) -> Iterator[tuple[str, str, str]]:
    for row in sorted(_rows(file), key=lambda row: "hardened" not in row["model"]):
        wanted = "≥ .95 (aim .98) / ≥ .99" if "hardened" in row["model"] else "for comparison"
        yield (
            f"`{row['model'].partition('+')[0]}`, scenes of {row['height']} lines, EOT-PGD L∞ .03 / clean",
            wanted,
            f"{float(row['attacked']):.3f} / {float(row['clean']):.3f} of {row['frames']}",
        )


def _hard_scenes(file: Path) -> Iterator[tuple[str, str, str]]:
    right, frames = Counter[tuple[bool, int]](), Counter[tuple[bool, int]]()
    for row in _rows(file):
        size = "hardened" in row["model"], int(row["height"])
        right[size] += int(row["right"])
        frames[size] += int(row["frames"])
    for lines in sorted({lines for hardened, lines in right if hardened}):
        if frames[False, lines] == frames[True, lines]:
            yield (
                f"the hardened network ÷ the plain one, hard scenes of {lines} lines, no attack",
                "≥ .97",
                f"{right[True, lines] / right[False, lines]:.3f} of {frames[True, lines]}",
            )


_HARDENING = "pointillist lab stale --only hardening --run"
_RED_TEAM = "pointillist lab stale --only red-team --run"

SOURCES: tuple[tuple[str, str, Callable[[Path], Iterator[tuple[str, str, str]]]], ...] = (
    ("hardening/attacked", _HARDENING, _scene),
    ("hardening/hard", _HARDENING, _hard_scenes),
    ("red-team/live.json", "python -m benchmarks.models.red_team_live --json docs/results/red-team/live.json", _live),
    ("red-team/parity", _RED_TEAM, _parity),
    ("red-team/broken", _RED_TEAM, _broken),
    ("aigan/success", "pointillist lab stale --only aigan --run", _aigan),
    ("aigan/times", "pointillist lab stale --only aigan --run", _aigan_times),
    ("qusecnets/rows", "pointillist lab stale --only qusecnets --run", _qusecnets),
    ("preprocessing/rows", "pointillist lab stale --only preprocessing --run", _preprocessing),
    (
        "trunk/preprocess.json",
        "python -m benchmarks.speed.preprocess --json docs/results/trunk/preprocess.json",
        _stages,
    ),
)
"""The place of a result under docs/results, the command that writes it, and the function that makes rows of it."""

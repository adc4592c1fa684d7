"""Information leaked to a thief of the brokers' disks and a bridge's secret: `python -m
benchmarks.security.eavesdropper`.

`pointillist up` runs cameras on pictures of CIFAR-10 (`$POINTILLIST_DATA/cifar10.npz`), and ends. The eavesdropper then
has the files of Kafka and mosquitto, the secret of the bridge and every second picture of the scene. From these it
guesses the other pictures in five ways: align pixels row by row; average over time; assume repeated keystreams; try
each key that follows from the bridge's; regression.

Each guess is also blended with the mean picture, with the weight that is best on the known pictures. So any information
in it raises the score. For comparison, the same attacks run on unsealed pixels and on random bytes.

`--folder` receives `eavesdropper.json` and `README.md`. The disks are under `--state`, and existing ones are read
again.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.data_sets import data_file
from benchmarks.security.eavesdropper.disks import Logged, disk, frames_of, images_in, lie_in, run
from benchmarks.security.eavesdropper.guesses import (
    Floats,
    Heard,
    as_if_keystreams_repeat,
    blended_db,
    learned,
    over_time,
    psnr_db,
    row_by_row,
    shown_in,
    under_key,
)  # fmt: skip
from infra.audit.kafka_files import read_topic
from infra.state_folder import Layout, role_file
from schemas.identity import CameraId
from schemas.keys.keys import CameraKey, KeyRing
from schemas.keys.roots import Role, Root, Roots, expanded
from schemas.limits import dropped_per_block
from schemas.messages.frame import opened_pixels
from schemas.messages.server_messages import open_pictures, open_statement
from schemas.pointillist_pb2 import Verdict
from schemas.runtime.atomic_file import write_text
from schemas.runtime.json_files import write_json
from schemas.topics import KafkaTopic

DROPS: Final = {"raw-25": 0.25, "raw-75": 0.75}
PIECES: Final = 400
PIECE_BYTES: Final = 48
FPS: Final = 10.0


def cameras() -> list[dict[str, Any]]:
    """Return the cameras that the eavesdropper observes."""
    source = {"kind": "dataset", "file": str(data_file("cifar10.npz").resolve()), "stride": 1, "offset": 0}
    made: list[dict[str, Any]] = [
        {"name": name, "source": source, "drop_ratio": drop, "profile": "raw", "probe_share": 0.05}
        for name, drop in DROPS.items()
    ]
    made.append({"name": "lossless", "source": source, "drop_ratio": 0.25, "profile": "lossless", "probe_share": 0})
    return made


def guessed_keys(bridge: Roots, camera: CameraId) -> dict[str, CameraKey]:
    """Return keys with which the thief of a bridge's secret could try to open frames."""
    root = bridge[Root.AUTHENTICATION]
    own = KeyRing(bridge).current(camera)
    info = b"pointillist v1 camera key\0" + camera.encode() + bytes(5)
    tries = {
        "the authentication root": root,
        "the camera's authentication key": expanded(root, info),
        "a picture root made of the authentication root": expanded(
            expanded(root, b"pointillist v1 root\0picture"), info
        ),
        "nothing": bytes(32),
    }
    return {name: CameraKey(camera, own.generation, root, key) for name, key in tries.items()}


def attacked(frames: Sequence[Heard], camera: CameraId, bridge: Roots, truth: KeyRing, dropped: int) -> dict[str, Any]:
    """Return the PSNR of each way in dB on every second frame, when the others are known."""
    known, unknown = frames[::2], frames[1::2]
    mean: Floats = shown_in(known).mean(axis=0)
    cut = len(known) * 3 // 4
    ways: dict[str, Callable[[Sequence[Heard]], Floats]] = {
        "row by row": row_by_row,
        "row by row, over nine frames": over_time,
        "as if keystreams repeated": as_if_keystreams_repeat(known, truth.current(camera), dropped),
        "regression": learned(known[:cut], known[cut:], mean),
    }
    for name, key in guessed_keys(bridge, camera).items():
        ways[f"under a key from {name}"] = under_key(key, dropped, mean)
    found = {}
    for name, guess in ways.items():
        alone, blend = blended_db(guess, known, unknown, mean)
        found[name] = {"alone_db": round(alone, 3), "blended_db": round(blend, 3)}
    mean_db = psnr_db(np.broadcast_to(mean, (len(unknown), *mean.shape)), shown_in(unknown))
    best = max(found, key=lambda name: max(found[name].values()))
    return {
        "frames_known": len(known), "frames_unknown": len(unknown), "mean_picture_db": round(mean_db, 3),
        "best_way": best, "best_db": max(found[best].values()),
        "best_over_mean_db": round(max(found[best].values()) - mean_db, 3), "ways": found,
    }  # fmt: skip


def heard(logged: Sequence[Logged], key: CameraKey | None) -> list[Heard]:
    """Return the frames that dropped pixels. With a `key`, return them unsealed."""
    return [
        Heard(f.boot_id, f.seq, bytes(opened_pixels(key, f)) if key is not None else f.pixels, picture)
        for f, picture in logged
        if not f.whole
    ]


def resting(state: Path, logged: dict[CameraId, list[Logged]], truth: KeyRing) -> dict[str, Any]:
    """Return the plaintext found on each disk, and whether the search would have found planted plaintext."""
    some = [frame for frames in logged.values() for frame, _ in frames[:: max(1, len(frames) // PIECES * 4)]]
    keys = [
        truth.current(camera) for camera, frames in logged.items() for _ in frames[:: max(1, len(frames) // PIECES * 4)]
    ]
    opened = [bytes(opened_pixels(key, frame))[:PIECE_BYTES] for key, frame in zip(keys, some, strict=True)]
    opened = [piece for piece in opened if len(set(piece)) > 8]
    sealed = [frame.pixels[:PIECE_BYTES] for frame in some]
    found: dict[str, Any] = {}
    for name, folder in (("Kafka", Layout(state).kafka_data), ("mosquitto", state / "mosquitto" / "data")):
        content = disk(folder)
        found[name] = {
            "bytes": len(content), "images": sum(1 for _ in images_in(content)),
            "pixels_of_frames": lie_in(content, opened), "of": len(opened), "sealed_pixels": lie_in(content, sealed),
        }  # fmt: skip
    previews = images = 0
    for record in read_topic(Layout(state).kafka_data, KafkaTopic.VERDICTS):
        camera = CameraId((record.key or b"").decode())
        verdict = open_statement(Verdict, camera, record.value or b"", truth)
        if verdict.preview:
            previews += 1
            open_pictures(verdict, camera, truth)
            images += sum(1 for _ in images_in(verdict.preview))
    return found | {"previews_in_kafka": previews, "images_with_the_recorders_key": images}


def lengths(logged: Sequence[Logged]) -> dict[str, Any]:
    """Return how much the lengths of sealed frames vary, and the cost of padding them."""
    sent = [frame for frame, _ in logged if not frame.whole]
    sizes = np.array([len(frame.pixels) for frame in sent], np.float64)
    bits = np.ceil(np.log2(sizes))
    unit = 2 ** np.maximum(0, bits - np.floor(np.log2(np.maximum(1, bits))) - 1)
    return {
        "frames": len(sent), "bytes_mean": round(float(sizes.mean()), 1),
        "bytes_deviation": round(float(sizes.std()), 1),
        "padded_to_padme_over_sent": round(float((np.ceil(sizes / unit) * unit).sum() / sizes.sum()), 3),
        "padded_to_the_largest_over_sent": round(float(sizes.max() * len(sizes) / sizes.sum()), 3),
    }  # fmt: skip


def measure(state: Path) -> dict[str, Any]:
    """Measure everything on the disks under `state`."""
    layout = Layout(state)
    truth = KeyRing(layout.fleet_secret())
    bridge = Roots.from_export(role_file(layout.roles, Role.BRIDGE).read_text(), Role.BRIDGE)
    logged = frames_of(state)
    found: dict[str, Any] = {"sealed": {}, "unsealed": {}, "random": {}, "sizes": {}}
    for name, drop in DROPS.items():
        camera = CameraId(f"seen/{name}")
        sealed, unsealed = (heard(logged[camera], key) for key in (None, truth.current(camera)))
        noise = np.random.default_rng(1)
        random = [each._replace(data=noise.bytes(len(each.data))) for each in sealed]
        for side, frames in (("sealed", sealed), ("unsealed", unsealed), ("random", random)):
            found[side][name] = attacked(frames, camera, bridge, truth, dropped_per_block(drop))
    for name in ("raw-25", "lossless"):
        found["sizes"][name] = lengths(logged[CameraId(f"seen/{name}")])
    found["resting"] = resting(state, logged, truth)
    return found


def markdown(document: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    lines = ["# What an eavesdropper sees", "", f"`{document['command']}`, {document['machine']}.", ""]
    lines += [
        "PSNR in dB over the pictures that the eavesdropper does not know; each way as it is, and blended with the",
        "mean picture. `unsealed` is the same attack on the same pixels without their cipher.", "",
    ]  # fmt: skip
    for name in DROPS:
        sealed, plain, random = (document[side][name] for side in ("sealed", "unsealed", "random"))
        lines += [
            f"## {name}: {sealed['frames_known']} pictures known, {sealed['frames_unknown']} not", "",
            f"Mean picture {sealed['mean_picture_db']:.2f} dB. The best of each, above it: sealed frames "
            f"**{_best(sealed)}**, random bytes in their place {_best(random)}, unsealed {_best(plain)}.", "",
            "| way | sealed | blended | unsealed | blended |", "| --- | ---: | ---: | ---: | ---: |",
        ]  # fmt: skip
        for way, found in sealed["ways"].items():
            unsealed = plain["ways"][way]
            row = (found["alone_db"], found["blended_db"], unsealed["alone_db"], unsealed["blended_db"])
            lines.append(f"| {way} | " + " | ".join(f"{value:.2f}" for value in row) + " |")
        lines.append("")
    lines += ["## On the disks", "", "| disk | bytes | images | pixels of frames | sealed pixels, as a check |"]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    rest = document["resting"]
    for name in ("Kafka", "mosquitto"):
        found = rest[name]
        pixels = f"{found['pixels_of_frames']} of {found['of']}"
        lines.append(f"| {name} | {found['bytes']:,} | {found['images']} | {pixels} | {found['sealed_pixels']} |")
    lines += [
        "", f"Kafka holds {rest['previews_in_kafka']} previews; with the recorder's key "
        f"{rest['images_with_the_recorders_key']} of them are images.", "",
        "## Information in the sizes", "",
        "| camera | bytes of pixels | deviation | padded (Padmé) | to the largest |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    for name, found in document["sizes"].items():
        lines.append(
            f"| {name} | {found['bytes_mean']:.0f} | {found['bytes_deviation']:.0f} | "
            f"× {found['padded_to_padme_over_sent']:.2f} | "
            f"× {found['padded_to_the_largest_over_sent']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def _best(found: dict[str, Any]) -> str:
    return f"{found['best_over_mean_db']:+.3f} dB ({found['best_way']})"


def main() -> None:
    """Run the system unless its disks exist, attack, print and write the tables."""
    arguments = command_line(
        __doc__,
        folder=Path("docs/results/eavesdropper"),
        state=Option(Path, "folder that keeps the disks (default: a temporary one)"),
        seconds=100.0,
    )
    with tempfile.TemporaryDirectory() as passing:
        state = arguments.state or Path(passing) / "state"
        if not (state / "report.json").is_file():
            run(state, cameras(), FPS, arguments.seconds)
        document = {
            "command": arguments.command,
            "machine": f"{os.cpu_count()} cores",
            **measure(state),
        }
    arguments.folder.mkdir(parents=True, exist_ok=True)
    write_json(arguments.folder / "eavesdropper.json", document)
    write_text(arguments.folder / "README.md", markdown(document))
    print(markdown(document))


if __name__ == "__main__":
    main()

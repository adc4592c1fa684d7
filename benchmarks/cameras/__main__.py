"""Twenty RTSP streams of a real server in one `camera run`, with an account of every frame.

    python -m benchmarks.cameras --out docs/results/cameras

Connections use TLS, with an enrolment for each camera. A bridge without Kafka confirms the frames, and reads the
number that the server has drawn into each picture. Streams are sent by the profile `raw`, in which a number can be
read, the file by the default. `--out` keeps the result of each part; delete a result to measure it again.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.cameras.accounts import large_stream, whole_file
from benchmarks.cameras.trouble import NAMED_S, trouble
from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.data_sets import sample_video
from schemas.runtime.atomic_file import write_text
from schemas.runtime.json_files import read_json, write_json


def page(found: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    streams, file, all_of_it, two = (found[part] for part in ("trouble", "file", "large", "large-2"))
    rows = streams["cameras"]
    missed, skipped = (sum(row[key] for row in rows) for key in ("missed", "skipped"))
    width, height = streams["size"]
    lines = [
        "# Cameras by the dozen",
        "",
        f"`python -m benchmarks.cameras --out docs/results/cameras`: {streams['listed']} RTSP streams of "
        f"{width} × {height} at "
        f"{streams['frames_per_second']} frames/s from GStreamer's server, in one `camera run` by TLS with enrolments, "
        f"{streams['seconds']:.0f} s, {found['cores']} of the machine's cores for all, other work on it.",
        "",
        "| camera | what happened | detected after, s | reported as | sent again after, s |",
        "| --- | --- | --- | --- | --- |",
    ]
    what = {
        "hangs": "its server stops answering",
        "dies": "its server is killed",
        "wrong-password": "its password is wrong from the start",
        "added": "added to the file",
        "removed": "taken off the file",
    }
    for name, happened in what.items():
        reason = streams["reasons"].get(name, {"added": "its first frame", "removed": "offline"}.get(name, ""))
        back = streams["back_s"].get(name)
        again = "" if back is None else f"{back:.1f}"
        lines.append(f"| {name} | {happened} | {streams['named_s'][name]:.1f} | {reason} | {again} |")
    lines += [
        "",
        f"Must be named within {NAMED_S:g} s. The wrong password counts from when the command took the camera up.",
        "",
        "| of the others | |",
        "| --- | --- |",
        f"| cameras | {len(rows)} |",
        f"| frames | {sum(row['frames'] for row in rows):,} |",
        f"| pictures that did not arrive | {missed} |",
        f"| skipped by the camera | {skipped} |",
        f"| restarted | {streams['restarted']} |",
        "",
        "| every frame accounted for | in the source | published | confirmed | skipped | unaccounted for |",
        "| --- | --- | --- | --- | --- | --- |",
        f"| {file['film']}, {file['size'][0]} × {file['size'][1]} | {file['frames']} | {file['published']} | "
        f"{file['confirmed']} | {file['skipped']} | {file['frames'] - file['confirmed'] - file['skipped']} |",
    ]
    for large in (all_of_it, two):
        sent = "all of them" if large["sent_at"] == "all" else f"at {large['sent_at']} frames/s"
        lines.append(
            f"| 1920 × 1080 at {large['frames_per_second']} frames/s, sent {sent} | {large['pictures']} | "
            f"{large['published']} | {large['confirmed']} | {large['skipped']} | {large['unaccounted']} |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    """Run the benchmark from the command line."""
    options = command_line(
        __doc__,
        out=Option(Path, required=True),
        fps=Option(5, "frames per second of each of the twenty streams"),
        seconds=20.0,
        film=Option(Path, "a film (default: one of $POINTILLIST_DATA/video)"),
    )
    parts: dict[str, Callable[[Path], dict[str, Any]]] = {
        "trouble": lambda folder: trouble(folder, options.fps, options.seconds),
        "file": lambda folder: whole_file(folder, options.film or sample_video()),
        "large": lambda folder: large_stream(folder, 3, options.seconds, {"fps": 0, "profile": "raw"}),
        "large-2": lambda folder: large_stream(folder, 8, options.seconds, {"fps": 1, "profile": "raw"}),
    }
    found = read_json(options.out / "cameras.json")
    for name, part in parts.items():
        if name not in found:
            with tempfile.TemporaryDirectory(prefix="cameras-") as folder:
                result = part(Path(folder))
            if result["exit_status"]:
                raise SystemExit(f"{name}: expected status 0 of `camera run`, got {result['exit_status']}")
            found |= {name: result, "cores": len(os.sched_getaffinity(0))}
            write_json(options.out / "cameras.json", found)
    write_text(options.out / "README.md", page(found))
    print(page(found))


if __name__ == "__main__":
    main()

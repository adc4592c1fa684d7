"""The page and the plot of the results."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from matplotlib.figure import Figure

from benchmarks.bytes.rows import DROP, JPEG, PRESETS, PROFILES_SENT, Row, equal, h264
from benchmarks.bytes.search import next_factor
from lab.results.markdown import markdown
from schemas.runtime.atomic_file import replacing

ASKED: Final = (*PROFILES_SENT, JPEG)

LEAVES_OUT: Final = """\
## What H.264 does not give

- **The defence.** All pixels leave the camera, and all of them are there to be shown to a network. They could be
  dropped on the server after decoding; whether the defence holds on what a codec has smeared was not measured here.
- **Frames that stand alone.** A message of ours has its own tag and is checked, stored, sent again, lost and decoded
  alone. In libx264's stream a frame needs all since the last key frame, up to 250, and what is lost damages them all:
  no redelivery in any order, replay or dead letter of one frame.
- **At once.** `medium` held back {held} frames here before it gave the first one out; ours hold none. What libx264 is
  tuned to for low latency costs more bytes than stand above.
- **Exact pixels.** Those that `raw` and `lossless` send arrive as the camera had them.

Where nothing but a picture for people is wanted, H.264 is the right choice wherever it is the smaller one above.
"""


def page(rows: list[Row], command: str, files: dict[str, float], most: int = 0) -> str:
    """Return the text around the table made by `command`, of the first `most` frames if that is not 0.

    `files` maps the videos' names to the bytes per frame of the videos' own files.
    """
    videos = sorted({row.video for row in rows})
    parts = [
        "# Bytes and CPU time of the profiles compared with JPEG and H.264",
        f"Made by `{command}`; the figures are in "
        f"[bytes.csv](bytes.csv).{f' Only the first {most} frames of each video were sent.' if most else ''}",
        "Quality is of the picture that the server shows: of ours, the frame rebuilt whole from what was sent "
        f"(r = {DROP:g}) by the default reconstruction; of JPEG and H.264 the decoded one. PSNR and SSIM, against the "
        "camera's own picture, are means over a sample of the frames; *page* is the PSNR of the smaller picture on the "
        "console's pages, where the thin plate fills what was dropped.",
        "Of H.264 stands the highest constant rate factor that shows no less, so it never gets by with less: one "
        "thread of libx264 with its plain presets, given the video's own colours, so that it converts none. The "
        "footage has been through H.264 before, which suits H.264: what its first encoder left out is gone, and needs "
        f"no bytes any more ({_files(files)}). A sensor's own pictures have grain, and were not measured.",
        "CPU time is that of this process for a frame, with all that a camera does (mask, coding, tag); ÷ JPEG is "
        "the ratio to a JPEG of the same frames, in turn. Other processes ran: only the ratios have a meaning.",
        "Real cameras send the profile `video`: a codec's stream of the kept pixels, [measured by itself]"
        "(../video/README.md).",
        "## Where H.264 is smaller, at the same PSNR",
        _verdicts(rows),
    ]
    for video in videos:
        some = [row for row in rows if row.video == video]
        parts += [f"## {video}", _sent(some), _equals(some)]
    parts += ["![Bytes a frame against PSNR](bytes.png)"]
    held = max((row.held_frames for row in rows if row.way == h264("medium")), default=0)
    return "\n\n".join([*parts, LEAVES_OUT.format(held=held)])


def _files(files: dict[str, float]) -> str:
    each = ", ".join(f"{name}: {size / 1000:.1f} kB a frame" for name, size in sorted(files.items()))
    return f"the files themselves: {each}" if each else "the files themselves were not at hand"


def _sent(rows: list[Row]) -> str:
    heads = ["way", "kB a frame", "PSNR, dB", "SSIM", "page, dB", "CPU ÷ JPEG 90", "CPU, ms"]
    lines = [
        [
            f"`{row.way}`" if row.way in PROFILES_SENT else row.way,
            f"{row.bytes_a_frame / 1000:.1f}", f"{row.psnr_db:.1f}", f"{row.ssim:.4f}", f"{row.page_psnr_db:.1f}",
            f"{row.cpu_ms / row.jpeg_ms:.1f}", f"{row.cpu_ms:.1f}",
        ]
        for row in _ours(rows)
    ]  # fmt: skip
    counts = " and ".join(f"{count} frames, {some} of them compared" for count, some in _counts(rows))
    return f"{counts}.\n\n{markdown(heads, lines)}"


def _counts(rows: list[Row]) -> list[tuple[int, int]]:
    return sorted({(row.frames, row.compared) for row in rows})


def _ours(rows: list[Row]) -> list[Row]:
    return [row for way in ASKED for row in rows if row.way == way]


def _equals(rows: list[Row]) -> str:
    heads = [
        "shows no less than", "H.264", "CRF", "kB a frame", "how many times smaller", "PSNR, dB", "SSIM",
        "page, dB", "CPU ÷ JPEG 90", "CPU, ms",
    ]  # fmt: skip
    lines = []
    for row in _ours(rows):
        if row.way == "lossless":  # the same picture as of `raw`
            continue
        for preset in PRESETS:
            found = equal(rows, preset, row)
            shown = JPEG if row.way == JPEG else "`raw`, `lossless`"
            known = [(each.crf or 0, each.psnr_db) for each in rows if each.way == h264(preset)]
            unfinished = next_factor(known, row.psnr_db) is not None
            if found is None or unfinished:
                lines.append([shown, preset, "not searched" if unfinished else "none", *[""] * 7])
                continue
            times = f"{row.bytes_a_frame / found.bytes_a_frame:.2f}"
            if row.way == "raw":
                (other,) = (each for each in rows if each.way == "lossless")
                times += f", {other.bytes_a_frame / found.bytes_a_frame:.2f}"
            lines.append([
                shown, preset, str(found.crf), f"{found.bytes_a_frame / 1000:.1f}", times,
                f"{found.psnr_db:.1f}", f"{found.ssim:.4f}", f"{found.page_psnr_db:.1f}",
                f"{found.cpu_ms / found.jpeg_ms:.1f}", f"{found.cpu_ms:.1f}",
            ])  # fmt: skip
    return markdown(heads, lines)


def _verdicts(rows: list[Row]) -> str:
    """Return a summary over all videos: the size ratio of H.264 at equal PSNR, and its CPU cost for the camera."""
    said = []
    for way in PROFILES_SENT:
        for preset in PRESETS:
            pairs = [(row, equal(rows, preset, row)) for row in rows if row.way == way]
            both = [(row, found) for row, found in pairs if found is not None]
            if not both:
                continue
            times = [row.bytes_a_frame / found.bytes_a_frame for row, found in both]
            costs = [found.cpu_ms / found.jpeg_ms / (row.cpu_ms / row.jpeg_ms) for row, found in both]
            smaller = sum(each > 1 for each in times)
            said.append(
                f"- `{way}`: {h264(preset)} is smaller on {smaller} of {len(pairs)} videos: {min(times):.1f} to "
                f"{max(times):.1f} times, for {min(costs):.2f} to {max(costs):.2f} of its CPU time."
            )
    return "\n".join(said)


def plot(rows: list[Row], file: Path) -> None:
    """Plot bytes per frame against PSNR, one panel per video."""
    videos = sorted({row.video for row in rows})
    figure = Figure(figsize=(5 * len(videos), 4.2), layout="constrained")
    panels = figure.subplots(1, len(videos), squeeze=False)
    for panel, video in zip(panels[0], videos, strict=True):
        some = [row for row in rows if row.video == video]
        for preset in PRESETS:
            curve = sorted((row for row in some if row.way == h264(preset)), key=lambda row: row.bytes_a_frame)
            panel.plot([r.bytes_a_frame / 1000 for r in curve], [r.psnr_db for r in curve], ".-", label=h264(preset))
        for way, mark in zip(ASKED, "s^x", strict=True):
            points = [row for row in some if row.way == way]
            panel.plot([r.bytes_a_frame / 1000 for r in points], [r.psnr_db for r in points], mark, label=way)
        panel.set(xscale="log", xlabel="kB a frame", ylabel="PSNR of what is shown, dB", title=video)
        panel.grid(visible=True, alpha=0.3)
    panels[0][0].legend()
    with replacing(file) as fresh:
        figure.savefig(fresh, format="png", dpi=100)

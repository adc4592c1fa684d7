"""The figures as a page."""

from __future__ import annotations

import statistics
from typing import Any

_WORDS = {
    "frames": "pipeline frames/s, secure ÷ plain",
    "bridge": "bridge CPU a frame, secure ÷ plain",
    "all": "CPU a frame of all processes, secure ÷ plain",
}


def ratios(secure: dict[str, Any], plain: dict[str, Any]) -> dict[str, float]:
    """Return the ratios secure ÷ plain of one round."""
    return {
        "frames": secure["frames_per_second"] / plain["frames_per_second"],
        "bridge": secure["cpu_s_per_frame_by_role"]["bridge"] / plain["cpu_s_per_frame_by_role"]["bridge"],
        "all": secure["cpu_s_per_frame"] / plain["cpu_s_per_frame"],
    }


def markdown(done: dict[str, Any]) -> str:
    """Return the results so far as a table."""
    lines = ["# What TLS, certificates and rights cost", "", "`python -m benchmarks.security.secure` printed this.", ""]
    lines += ["| what | median | rounds |", "| --- | --- | --- |"]
    rounds = [
        ratios(done[name], done[f"plain {number}"])
        for name in done
        if name.startswith("secure ") and f"plain {(number := name.partition(' ')[2])}" in done
    ]
    for key, what in _WORDS.items() if rounds else ():
        values = [each[key] for each in rounds]
        shown = ", ".join(f"{value:.2f}" for value in values)
        lines.append(f"| {what} | {statistics.median(values):.2f} | {shown} |")
    if found := done.get("revocation"):
        every = ", ".join(f"{value:.2f}" for value in found["all_revoked_s"])
        lines.append(f"| s from `revoke` to the last accepted frame | {found['revoked_s']:.2f} | {every} |")
        lines.append(f"| s that `revoke` took then | {found['command_s']:.2f} | |")
    if found := done.get("race"):
        what = f"{found['revoked']:,} revocations by {found['processes']} processes at once: missing anywhere"
        lines.append(f"| {what} | {found['missing']['anywhere']} | |")
        lines.append(f"| s that they took | {found['seconds']:.1f} | |")
    machine = next(iter(done.values()))["machine"]
    loads = [cell["machine"]["load"] for cell in done.values()]
    lines += [
        "",
        f"{machine['cores']} cores, {machine['processor']}, with other processes running: load {min(loads):.1f} to "
        f"{max(loads):.1f} at the start of a cell.",
        "",
    ]
    return "\n".join(lines)

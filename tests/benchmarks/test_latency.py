from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.speed.latency import STRETCHES, markdown, parsed, read_stamps, stretches, summary
from schemas.runtime.trace import STAMPS

MS = 10**6


def test_the_first_of_a_frames_stamps_counts_whichever_file_holds_it(tmp_path: Path) -> None:
    (tmp_path / "bridge-1.tsv").write_text(f"{9 * MS}\treceived\tlab/a/1/0\n{5 * MS}\treceived\tlab/a/1/0\n")
    (tmp_path / "bridge-2.tsv").write_text(f"{7 * MS}\treceived\tlab/a/1/0\n{8 * MS}\tsent\tlab/a/1/1\n")
    assert read_stamps(tmp_path) == {"lab/a/1/0": {"received": 5 * MS}, "lab/a/1/1": {"sent": 8 * MS}}


def test_stretches_lead_from_stamp_to_stamp_and_add_up_to_the_whole_way() -> None:
    probe = {what: number**2 * MS for number, what in enumerate(STAMPS)}
    plain = {what: at_ns for what, at_ns in probe.items() if what != "checked"}
    lost = {"captured": 0, "spooled": MS}
    found = stretches([probe, plain, lost])
    assert set(found) == {*STAMPS[1:], "whole way"}
    assert len(found["checked"]) == 1
    number = STAMPS.index("answered")
    assert found["answered"] == [number**2 - (number - 1) ** 2, number**2 - (number - 2) ** 2]
    ways = [sum(values[n] for values in found.values() if len(values) == 2) for n in (0, 1)]
    whole = float((len(STAMPS) - 1) ** 2)
    assert found["whole way"] == [whole, whole]
    assert ways == [2 * whole - found["checked"][0], 2 * whole]


def test_every_stamp_after_the_first_has_its_words() -> None:
    assert tuple(STRETCHES) == STAMPS[1:]


def test_the_tables_show_the_medians_of_the_rounds_and_the_ratios_of_both_sides() -> None:
    def one(p50_s: float) -> dict[str, object]:
        each = {"p50": 2.0, "p99": 3.0}
        return {
            "p50_s": p50_s, "p99_s": 2 * p50_s, "frames_lost": 0, "cpu_ms_per_frame": {"bridge": 1.0, "kafka": 2.0},
            "stretches_ms": dict.fromkeys((*STAMPS[1:], "whole way"), each),
        }  # fmt: skip

    sides = {"this": summary([one(0.01), one(0.02), one(0.09)]), "beside": summary([one(0.04)])}
    assert sides["this"]["p50_s"] == 0.02
    document = {"command": "python …", "machine": "x", "rounds": 3, "seconds": 40.0, "beside": "c0ffee"}
    shown = markdown(document | {"summary": {"8x2": sides}})
    assert "## 8 cameras × 2 frames/s" in shown
    assert "| **capture to record** | **20** | **40** |" in shown
    assert "÷ the other checkout (c0ffee), in turns: p50 0.50, p99 0.50, CPU a frame 1.00." in shown
    assert "CPU time a frame: 3.00 ms (bridge 1.00, kafka 2.00). Lost: 0." in shown


def test_a_load_is_cameras_and_frames_a_second() -> None:
    assert parsed("32x8") == (32, 8.0)
    with pytest.raises(ValueError, match="invalid literal"):
        parsed("many")

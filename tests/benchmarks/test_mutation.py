"""The fates of mutants, their score, and samples of them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from benchmarks.reliability.mutation import by_room, draw, exit_codes, fates, table

CODES: dict[str, dict[str, int | None]] = {
    "schemas/ranges.py": {"r1": 1, "r2": 1, "r3": 1, "r4": 0},
    "schemas/pixels/masks.py": {"m1": -24, "m2": 33, "m3": None, "m4": 1},
    "schemas/empty.py": {},
}


def test_an_unreached_mutant_survives_and_an_untried_one_counts_against_the_score(
    tmp_path: Path,
) -> None:
    for module, by_name in CODES.items():
        meta = tmp_path / f"{module}.meta"
        meta.parent.mkdir(parents=True, exist_ok=True)
        meta.write_text(json.dumps({"exit_code_by_key": by_name}))
    codes = exit_codes(tmp_path)
    assert codes == CODES
    found = fates(codes, {name for by_name in codes.values() for name in by_name})
    assert found == {
        "schemas/pixels/masks.py": Counter(killed=2, survived=1, untried=1),
        "schemas/ranges.py": Counter(killed=3, survived=1),
    }
    rooms = by_room(found, ["schemas/*.py", "schemas/ranges.py"])
    assert rooms == {
        "schemas/": Counter(killed=5, survived=2, untried=1),
        "schemas/ranges.py": Counter(killed=3, survived=1),
        "all": Counter(killed=5, survived=2, untried=1),
    }
    assert "| `schemas/` | 8 | 8 | 5 | 2 | 1 | 62.5 % |" in table("room", rooms)


def test_equal_seeds_draw_equal_samples_and_the_score_has_an_interval() -> None:
    names = [name for by_name in CODES.values() for name in by_name]
    drawn = draw(names, 3, seed=4)
    assert drawn == draw(reversed(names), 3, seed=4) != draw(names, 3, seed=5)
    assert len(set(drawn)) == 3
    assert sorted(draw(names, 0)) == sorted(draw(names, 99)) == sorted(names)
    found = fates(CODES, {"r1", "r4", "m3"})
    assert found["schemas/ranges.py"] == Counter(killed=1, survived=1, left=2)
    # Wilson's interval for 1 of 2 is .5 ± 1.96 / (1 + 1.92) * sqrt(.125 + .24).
    assert "| `schemas/ranges.py` | 4 | 2 | 1 | 1 | 0 | 50.0 % (9.5–90.5) |" in table("module", found)

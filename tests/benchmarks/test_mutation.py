import json
from collections import Counter
from pathlib import Path

from benchmarks.reliability.mutation import by_room, fates, read_table, table, with_earlier


def test_a_mutant_that_no_test_reaches_has_survived_and_one_that_was_not_tried_counts_against_the_score(
    tmp_path: Path,
) -> None:
    for module, codes in (
        ("schemas/ranges.py", [1, 1, 1, 0]),
        ("schemas/pixels/masks.py", [-24, 33, None, 1]),
        ("schemas/empty.py", []),
    ):
        meta = tmp_path / f"{module}.meta"
        meta.parent.mkdir(parents=True, exist_ok=True)
        meta.write_text(json.dumps({"exit_code_by_key": dict(enumerate(codes))}))
    found = fates(tmp_path)
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
    assert "≥ 62.5 %" in table("room", rooms)
    assert "untried" not in table("module", {"schemas/ranges.py": found["schemas/ranges.py"]})


def test_a_table_is_read_back_and_a_run_that_was_cut_short_hides_no_earlier_one() -> None:
    earlier = {
        "schemas/ranges.py": Counter(killed=9, survived=1, untried=0),
        "schemas/errors.py": Counter(killed=0, survived=6, untried=0),
        "schemas/gone.py": Counter(killed=3, survived=0, untried=0),
    }
    partly = {**earlier, "schemas/keys/keys.py": Counter(killed=10, survived=0, untried=2)}
    for written in (earlier, partly):
        assert read_table(table("module", written)) == written
    found = {
        "schemas/ranges.py": Counter(killed=2, survived=0, untried=8),
        "schemas/errors.py": Counter(killed=1, survived=5),
        "schemas/topics.py": Counter(killed=4),
    }
    assert with_earlier(found, earlier) == {**found, "schemas/ranges.py": earlier["schemas/ranges.py"]}

"""The tests under other vector widths: one counted run for each capability of the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.reliability import cpus

TESTS = """
import os
import pytest

def test_passes_everywhere(): pass

def test_fails_without_vectors():
    assert os.environ["ATEN_CPU_CAPABILITY"] != "default"

def test_fails_with_two_threads():
    assert os.environ["OMP_NUM_THREADS"] == "1"

@pytest.mark.skip
def test_is_skipped(): pass
"""


def test_only_capabilities_of_the_cpu_are_run() -> None:
    assert cpus.capabilities(frozenset()) == ["default"]
    assert cpus.capabilities(frozenset({"avx2", "fma", "avx512f"})) == ["default", "avx2"]
    assert cpus.capabilities(cpus.NEEDED["avx512"] | {"avx2"}) == ["default", "avx2", "avx512"]


def test_failures_are_counted_and_named_for_each_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cpus, "cpu_flags", frozenset)
    monkeypatch.chdir(tmp_path)
    Path("test_some.py").write_text(TESTS)
    assert cpus.main(["test_some.py", "--threads", "1", "2", "--json", "found.json"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" in ")[0] for line in lines if " thread" in line or "not run" in line] == [
        "default, 1 thread: 2 passed, 1 failed, 1 skipped",
        "default, 2 threads: 1 passed, 2 failed, 1 skipped",
        "avx2: not run, this CPU does not support it",
        "avx512: not run, this CPU does not support it",
    ]
    assert lines[1] == "  failed: test_some.py::test_fails_without_vectors"
    assert len(json.loads(Path("found.json").read_text())["runs"]) == 2


def test_a_run_without_tests_raises_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match="expected status 0 or 1, got"):
        cpus.run_tests("default", 1, ["absent.py"])

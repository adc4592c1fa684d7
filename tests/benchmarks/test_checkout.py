"""Benchmarks of another checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.harness.checkout import run_in_checkout


def test_a_benchmark_of_another_checkout_is_found_in_any_folder_and_runs_there(tmp_path: Path) -> None:
    folder = tmp_path / "benchmarks" / "moved"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "pace.py").write_text(
        "import json, os, subprocess, sys\nfrom pathlib import Path\n"
        "command = [sys.executable, '-P', '-c', 'import benchmarks; print(benchmarks.__file__)']\n"
        "started = subprocess.run(command, capture_output=True, text=True).stdout.strip()\n"
        "Path(sys.argv[-1]).write_text(json.dumps([__spec__.name, os.getcwd(), sys.argv[1:3], started]))\n"
    )
    assert run_in_checkout(tmp_path, "pace.py", "--rounds", 2) == [
        "benchmarks.moved.pace", str(tmp_path), ["--rounds", "2"], str(folder.parent / "__init__.py"),
    ]  # fmt: skip
    with pytest.raises(FileNotFoundError, match=r"expected cost\.py, found none"):
        run_in_checkout(tmp_path, "cost.py")

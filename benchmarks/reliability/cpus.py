"""The tests under the vector widths of other CPUs, with one and two threads: `make test-cpus`.

`python -m benchmarks.reliability.cpus --json FILE tests/processors` runs pytest once for each `ATEN_CPU_CAPABILITY`
of this CPU and each `OMP_NUM_THREADS`. It prints how many tests passed and failed in each run. Sums in another order
round differently: a test or a stage that depends on the order passes on one machine and fails on another. The exit
status is 0 if no test failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from benchmarks.harness.document import report
from processors.device.cpu_flags import cpu_flags

NEEDED: Final[dict[str, frozenset[str]]] = {
    "default": frozenset(),
    "avx2": frozenset({"avx2", "fma"}),
    "avx512": frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl", "fma"}),
}
"""The CPU flags that each capability needs. Torch does not check them, and a kernel without them kills the process."""
THREADS: Final = (1, 2)
PARTS: Final = ("tests/schemas", "tests/processors", "tests/lab")
"""The tests that compute with torch or numpy."""


@dataclass(frozen=True)
class Run:
    """The result of pytest under one capability."""

    capability: str
    threads: int
    passed: int
    failed: int
    skipped: int
    seconds: float
    failures: tuple[str, ...]
    """Names of the tests that failed."""


def capabilities(flags: frozenset[str]) -> list[str]:
    """Return the capabilities of a CPU with these flags, the narrowest first."""
    return [name for name, needed in NEEDED.items() if needed <= flags]


def run_tests(capability: str, threads: int, tests: Sequence[str]) -> Run:
    """Run these tests in a separate process, except those that need brokers. Raises RuntimeError if no test runs."""
    environment = os.environ | {"ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", "-p", "no:cacheprovider"]
        begun = time.monotonic()
        # Pytest writes to stderr: stdout carries only the results.
        done = subprocess.run([*command, "-m", "not brokers", *tests], env=environment, stdout=2, check=False)
        seconds = round(time.monotonic() - begun, 1)
        if done.returncode not in (0, 1) or not report.is_file():
            raise RuntimeError(f"pytest under {capability}: expected status 0 or 1, got {done.returncode}")
        cases = list(ElementTree.parse(report).iter("testcase"))
    failures = tuple(_name(case) for case in cases if {"failure", "error"} & {each.tag for each in case})
    skipped = sum(case.find("skipped") is not None for case in cases)
    passed = len(cases) - len(failures) - skipped
    return Run(capability, threads, passed, len(failures), skipped, seconds, failures)


def _name(case: ElementTree.Element) -> str:
    return f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tests under each capability; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reliability.cpus", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--json", type=Path, help="Write the results to this file.")
    parser.add_argument("--threads", type=int, nargs="+", default=list(THREADS), help="Values of OMP_NUM_THREADS.")
    parser.add_argument("tests", nargs="*", default=list(PARTS), help="Files and folders, as for pytest.")
    chosen = parser.parse_args(arguments)
    able = capabilities(cpu_flags())
    runs = []
    for name in able:
        for threads in chosen.threads:
            runs.append(found := run_tests(name, threads, chosen.tests))
            print(
                f"{name}, {threads} thread{'s' * (threads > 1)}: {found.passed} passed, {found.failed} failed, "
                f"{found.skipped} skipped in {found.seconds:.0f} s",
                flush=True,
            )
            for failure in found.failures:
                print(f"  failed: {failure}", flush=True)
    for name in NEEDED:
        if name not in able:
            print(f"{name}: not run, this CPU does not support it", flush=True)
    if chosen.json is not None:
        report({"tests": chosen.tests, "runs": [asdict(each) for each in runs]}, chosen.json)
    return int(any(each.failed for each in runs))


if __name__ == "__main__":
    sys.exit(main())

"""A check that the release runs on a clean machine: `python -m benchmarks.reliability.release --json FILE`.

`make release-check` runs it. It builds the sdist, and from it the wheel. It installs the wheel with the locked
requirements into a new environment. There it prints the version, runs the doctor, and runs two cameras for ten seconds.
The working folder is empty, and no path leads to this checkout or its environment. Meanwhile the console must serve its
pages, and every static file of theirs as in the wheel. The exit status is 0 if all of that holds. Otherwise one line
names the failure.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.harness.command_line import command_line
from benchmarks.harness.document import report
from infra.release.packaging import ROOT, build, install
from schemas.runtime.json_files import read_json

UP: Final = "pointillist up --cameras 2 --fps 2 --seconds 10 --report report.json"
PAGES: Final = ("/", "/system", "/alerts", "/models", "/dead-letters")
_PLACES: Final = re.compile(r"consumers/console/(?:static|assets)/([^/]+\.(?:js|css|svg))")
_PATIENCE_S: Final = 300.0


class Check:
    """A log of the steps and their durations."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Time the block."""
        begun = time.monotonic()
        yield
        self.seconds[what] = round(time.monotonic() - begun, 1)
        print(f"{what}: {self.seconds[what]:.1f} s", flush=True)


def surroundings(binaries: Path) -> dict[str, str]:
    """Return this process's environment without variables that lead to the checkout or to another installation."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "POINTILLIST_")) and name != "VIRTUAL_ENV"
    }
    places = [place for place in kept.get("PATH", "").split(os.pathsep) if not Path(place).is_relative_to(ROOT)]
    return kept | {"PATH": os.pathsep.join((str(binaries), *places))}


def served(wheel: Path, page: str) -> int:
    """Return the number of files of the console at `page` (host:port) that equal those of the wheel.

    All files that its pages name must be equal.
    """
    with zipfile.ZipFile(wheel) as archive:
        wanted = {found[1]: archive.read(name) for name in archive.namelist() if (found := _PLACES.fullmatch(name))}
    named = {name for path in PAGES for name in re.findall(r'"/static/([^"]+)"', _get(page, path).decode())}
    if missing := named - wanted.keys():
        raise SystemExit(f"wheel: expected all files that the console's pages name, got none for {', '.join(missing)}")
    for name, content in wanted.items():
        if _get(page, f"/static/{name}") != content:
            raise SystemExit(f"console: expected {name} as in the wheel, got another file")
    return len(wanted)


def _get(page: str, path: str) -> bytes:
    with urllib.request.urlopen(f"http://{page}{path}", timeout=10) as answer:
        found: bytes = answer.read()
        return found


def _console(folder: Path, up: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Return `up`'s entry for its console, after the cameras have started."""
    state, end = folder / ".pointillist", time.monotonic() + _PATIENCE_S
    while time.monotonic() < end and up.poll() is None:
        roles = read_json(state / "roles.json")
        if "fleet" in roles:
            found: dict[str, Any] = roles["console"]
            return found
        time.sleep(0.05)
    raise SystemExit(f"`up`: expected its cameras to start, got {(folder / 'up.log').read_text()[-1000:]}")


def _run(command: str, folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command.split(), cwd=folder, env=environment, check=False, capture_output=True, text=True, timeout=_PATIENCE_S
    )
    if done.returncode:
        raise SystemExit(f"{command}: expected status 0, got {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def run_up(wheel: Path, binaries: Path, folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Run two cameras for ten seconds in `folder`. Return the recorded frames and the number of served files."""
    with (folder / "up.log").open("wb") as log:
        up = subprocess.Popen(UP.split(), cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        console = _console(folder, up)
        program = psutil.Process(console["pid"]).cmdline()[0]
        if not Path(program).is_relative_to(binaries):
            raise SystemExit(f"console: expected the program of the new environment, got {program}")
        files = served(wheel, console["listen"])
        status = up.wait(_PATIENCE_S)
    finally:
        if up.poll() is None:
            up.terminate()
            up.wait(60)
    if status:
        raise SystemExit(f"up: expected status 0, got {status}: {(folder / 'up.log').read_text()[-1000:]}")
    report = json.loads((folder / "report.json").read_text())
    kept = {name: report[name] for name in ("frames_published", "frames_recorded", "frames_lost")}
    if kept["frames_lost"] or not kept["frames_recorded"]:
        raise SystemExit(f"frames: expected some recorded and none lost, got {kept}")
    return kept | {"pages": len(PAGES), "files_of_pages": files}


def check(folder: Path) -> dict[str, Any]:
    """Run all steps in `folder`."""
    steps, empty = Check(), folder / "empty"
    empty.mkdir()
    with steps.step("built the sdist, and from it the wheel"):
        wheel, sdist = build(folder / "dist")
    with steps.step("installed the wheel and the locked requirements into a new environment"):
        binaries = install(wheel, "server", folder / "environment")
    environment = surroundings(binaries)
    with steps.step("asked for the version"):
        version = _run("pointillist --version", empty, environment).strip()
        place = "import infra, sys; print(infra.__file__, *sys.path, sep='\\n')"
        seen = subprocess.run(
            [binaries / "python", "-c", place], cwd=empty, env=environment, check=True, capture_output=True, text=True
        ).stdout.splitlines()
    if any(Path(each).is_relative_to(ROOT) for each in seen if each):
        raise SystemExit(f"path: expected no entry of the checkout, got {', '.join(seen)}")
    with steps.step("let the doctor look"):
        doctor = json.loads(_run("pointillist doctor --json", empty, environment))
    with steps.step(f"ran `{UP}`, its console looked at"):
        found = run_up(wheel, binaries, empty, environment)
    print(
        f"{version}: wheel {wheel.stat().st_size / 1e6:.1f} MB, sdist {sdist.stat().st_size / 1e6:.1f} MB; "
        f"{found['frames_recorded']} of {found['frames_published']} frames recorded, {found['frames_lost']} lost; "
        f"{found['files_of_pages']} files of the console's pages equal the wheel's"
    )
    return {
        "version": version,
        "wheel_bytes": wheel.stat().st_size,
        "sdist_bytes": sdist.stat().st_size,
        "parts": {part["what"]: part["ok"] for part in doctor["parts"]},
        **found,
        "seconds": steps.seconds,
    }


def main() -> None:
    """Check, print, and write the JSON."""
    arguments = command_line(__doc__, json=Path)
    with tempfile.TemporaryDirectory(prefix="pointillist-release-") as folder:
        result = check(Path(folder))
    if arguments.json:
        report({"result": result}, arguments.json)


if __name__ == "__main__":
    main()

"""What is built is what is here, and a camera needs no torch."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from infra import assets

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("schemas", "producers", "processors", "consumers", "lab", "infra", "bundles")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (found,) = out.glob("*.whl")
    return found


def uv() -> str:
    # On the path, or where the Makefile puts one of our own.
    found = shutil.which("uv") or shutil.which("uv", path=str(ROOT / "build" / "uv" / "bin"))
    assert found, "expected uv on the path or in build/uv/bin: `make setup` installs it"
    return found


def tracked_files() -> set[str]:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return {line for line in listing.stdout.splitlines() if (ROOT / line).is_file()}


def test_wheel_has_every_package_and_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    checkout = ("lab/aigan/models/", "lab/backdoor/models/", "lab/networks/qusecnets/")
    taken_in = {f"consumers/console/assets/{name}" for name in (*assets.FILES, assets.STAMP)}
    assert inside == {name for name in tracked_files() if not name.startswith(checkout)} | taken_in
    assert wheel.stat().st_size < 20 * 2**20


def test_wheel_has_what_is_not_python(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for needed in (
        "schemas/pointillist.proto",
        "infra/kafka/pom.xml",
        "infra/mosquitto/mosquitto.conf.in",
        "bundles/scene/model.toml",
        "bundles/scene-plain/model.toml",
        "bundles/cifar10/model.toml",
        "bundles/cifar10-hardened/model.toml",
    ):
        assert needed in names


@pytest.mark.slow
def test_edge_install_has_no_torch_and_runs_the_camera_side(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "edge"
    subprocess.run([uv(), "venv", "-q", "--python", sys.executable, str(environment)], check=True, timeout=60)
    python = environment / "bin" / "python"
    install = [uv(), "pip", "install", "-q", "--python", str(python)]
    subprocess.run(
        [*install, "--require-hashes", "-r", str(ROOT / "requirements" / "edge.txt")], check=True, timeout=200
    )
    subprocess.run([*install, "--no-deps", str(wheel)], check=True, timeout=60)
    program = (
        "import importlib.util, sys\n"
        "import producers.fleet, producers.scenario, producers.sources.settings, infra.cli.camera\n"
        "assert importlib.util.find_spec('torch') is None\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([str(python), "-c", program], check=True, timeout=60, cwd=tmp_path)
    help_page = subprocess.run(
        [str(environment / "bin" / "pointillist"), "camera", "attach", "--help"],
        check=True, capture_output=True, text=True, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    assert "--hang" in help_page.stdout
    refused = subprocess.run(
        [str(environment / "bin" / "pointillist"), "process", "--bundle", "x", "--kafka", "localhost:1"],
        check=False, capture_output=True, text=True, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "pointillist[server]" in refused.stderr

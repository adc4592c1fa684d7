"""The wheel and the source distribution have all files, and an edge installation has no torch."""

from __future__ import annotations

import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from infra.release import assets
from infra.release.packaging import build, install
from lab.experiments.codefend.plan import CATALOGUE

ROOT = Path(__file__).resolve().parents[2]
ASSETS = {f"consumers/console/assets/{name}" for name in (*assets.FILES, assets.STAMP)}
PACKAGES = ("schemas", "producers", "processors", "consumers", "lab", "infra", "bundles")

REBUILT = "bundles/restorer/without-attack.safetensors"
"""Weights that experiments of a checkout compare with, and that a command can create again."""


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def wheel(released: tuple[Path, Path]) -> Path:
    return released[0]


def tracked_files(*places: str) -> set[str]:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *places],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return {line for line in listing.stdout.splitlines() if (ROOT / line).is_file()}


def test_wheel_has_every_package_and_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    networks = tuple(f"lab/networks/{name}/" for name in ("densenet", "mobilenet", "qusecnets"))
    checkout = ("lab/aigan/models/", "lab/backdoor/models/", *networks, REBUILT)
    assert inside == {name for name in tracked_files(*PACKAGES) if not name.startswith(checkout)} | ASSETS
    assert wheel.stat().st_size < 30 * 2**20


def test_sdist_has_all_of_the_checkout_and_the_console_s_assets(released: tuple[Path, Path]) -> None:
    _, sdist = released
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    models = (*CATALOGUE, "cnn-d-1", "resnet20-random", "resnet20-two")
    excluded = tuple(f"lab/backdoor/models/{name}/" for name in models)
    expected = {name for name in tracked_files() if not name.startswith((".", REBUILT, *excluded))}
    assert inside - {"PKG-INFO", ".gitignore"} == expected | ASSETS
    assert sdist.stat().st_size < 100 * 10**6, "the limit of PyPI"


@pytest.mark.slow
def test_edge_install_has_no_torch_and_runs_the_camera_side(wheel: Path, tmp_path: Path) -> None:
    binaries = install(wheel, "edge", tmp_path / "edge")
    program = (
        "import importlib.util, sys\n"
        "import producers.simulation.simulated_fleet, producers.simulation.scenario\n"
        "import producers.sources.settings, infra.cli.camera\n"
        "assert importlib.util.find_spec('torch') is None\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([str(binaries / "python"), "-c", program], check=True, timeout=60, cwd=tmp_path)
    help_page = subprocess.run(
        [str(binaries / "pointillist"), "camera", "attach", "--help"],
        check=True, capture_output=True, text=True, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    assert "--rotate" in help_page.stdout
    rejected = subprocess.run(
        [str(binaries / "pointillist"), "process", "--bundle", "x", "--kafka", "localhost:1"],
        check=False, capture_output=True, text=True, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    assert rejected.returncode == 2
    assert "pointillist[server]" in rejected.stderr

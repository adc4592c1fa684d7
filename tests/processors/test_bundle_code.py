"""The code of a bundle runs only if the user allows it, a trusted signer signed it, or it ships with the project."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from processors.bundle import load_bundle, read_settings, shipped_bundle
from processors.bundle.code import ALLOW_CODE, check_code, code_of
from schemas.errors import BundleError
from tests.processors.tiny import CLASSES, marker_code, use_format, use_own_factory, write_bundle

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset the variable by which a user allows the code of bundles."""
    monkeypatch.delenv(ALLOW_CODE)


def with_factory(folder: Path) -> tuple[Path, Path]:
    """Write a bundle with a factory in its own file; return the bundle and the marker file that the factory creates."""
    made, ran = write_bundle(folder), folder / "ran"
    use_own_factory(made, marker_code(ran))
    return made, ran


class Script(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


def with_torchscript(folder: Path) -> Path:
    made = write_bundle(folder)
    torch.jit.save(torch.jit.script(Script().eval()), made / "network.pt")
    use_format(made, "torchscript", "network.pt")
    assert len(CLASSES) == 3
    return made


def test_a_factory_in_a_file_of_the_bundle_does_not_run_without_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, ran = with_factory(tmp_path)
    for value in (None, "", "0", "no"):
        if value is not None:
            monkeypatch.setenv(ALLOW_CODE, value)
        with pytest.raises(
            BundleError, match=r"the factory network.py:network: expected permission .* give --allow-code"
        ):
            load_bundle(made, CPU)
    assert not ran.exists()
    monkeypatch.setenv(ALLOW_CODE, "1")
    load_bundle(made, CPU)
    assert ran.exists()


def test_a_factory_runs_if_a_trusted_signer_vouches_for_the_bundle(tmp_path: Path) -> None:
    made, ran = with_factory(tmp_path)
    load_bundle(made, CPU, vouched=True)
    assert ran.exists()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript_is_not_opened_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, opened = with_torchscript(tmp_path), torch.jit.load
    monkeypatch.setattr(torch.jit, "load", None)
    with pytest.raises(BundleError, match=r"the TorchScript network\.pt: expected permission"):
        load_bundle(made, CPU)
    monkeypatch.setattr(torch.jit, "load", opened)
    load_bundle(made, CPU, vouched=True)
    monkeypatch.setenv(ALLOW_CODE, "1")
    load_bundle(made, CPU)


def test_a_bundle_without_code_needs_no_permission(tmp_path: Path) -> None:
    made = write_bundle(tmp_path)
    assert code_of(read_settings(made)) is None
    load_bundle(made, CPU)


def test_shipped_bundles_are_trusted_only_in_the_folder_in_which_they_ship(tmp_path: Path) -> None:
    made, _ = with_factory(tmp_path / "made")
    settings = read_settings(made)
    shipped = shipped_bundle("scene")
    check_code(settings, shipped, vouched=False)
    check_code(settings, shipped.parents[1] / "lab" / "backdoor" / "models" / "cnn-clean" / "bundle", vouched=False)
    shutil.copytree(shipped, tmp_path / "bundles" / "scene")
    (tmp_path / "link").symlink_to(made)
    for untrusted in (
        tmp_path / "bundles" / "scene",
        tmp_path / "link",
        shipped / ".." / ".." / "tests",
        shipped.parents[1],
    ):
        with pytest.raises(BundleError, match="--allow-code"):
            check_code(settings, untrusted, vouched=False)


def test_a_factory_of_the_project_imports_no_package_that_the_bundle_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, ran = write_bundle(tmp_path / "bundle"), tmp_path / "ran"
    table = made / "model.toml"
    text = table.read_text().replace("tests.processors.tiny:network", "processors.networks.library:library")
    table.write_text(text.replace("[input]", '[factory_arguments]\npackage = "stray_package"\n\n[input]', 1))
    (tmp_path / "stray_package.py").write_text(marker_code(ran))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BundleError, match="library: expected torchvision or timm, got 'stray_package'"):
        load_bundle(made, CPU)
    assert not ran.exists()

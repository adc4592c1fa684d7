"""A bundle's folder is checked before a command or a processor reads its files."""

from __future__ import annotations

import asyncio
import py_compile
import shutil
import sys
from collections.abc import Callable
from importlib.util import cache_from_source
from pathlib import Path

import onnx
import pytest
from prometheus_client import CollectorRegistry

from consumers.console.jobs.bundles import operator_bundles
from infra.cli.lab.shared import bundle_folder
from infra.cli.model import checked, folder_of
from processors.device.loaded_model import load_model
from processors.metrics import ProcessorMetrics
from processors.models.store import bundle_files
from processors.settings import ProcessorSettings
from schemas.errors import BundleError
from tests.infra.own_networks import write_onnx
from tests.processors.tiny import marker_code, use_format, use_own_factory, write_bundle


def publish(folder: Path) -> None:
    checked(folder_of(folder))


def evaluate(folder: Path) -> None:
    checked(bundle_folder(str(folder)))


def process(folder: Path) -> None:
    settings = ProcessorSettings(kafka="none:1", bundle=folder, backend="torch")
    asyncio.run(load_model(settings, ProcessorMetrics(CollectorRegistry()), folder)).close()


each_use = pytest.mark.parametrize("use", [publish, evaluate, process])


@each_use
def test_a_graph_with_weights_in_a_file_that_the_model_id_does_not_cover_is_rejected(
    tmp_path: Path, use: Callable[[Path], None]
) -> None:
    folder = write_bundle(tmp_path, overlays=0)
    use_format(folder, "onnx", "network.onnx")
    plain = onnx.load(write_onnx(folder / "network.onnx", sides=(32, 32)))
    onnx.save_model(plain, folder / "network.onnx", save_as_external_data=True, location="w.data", size_threshold=0)
    with pytest.raises(
        BundleError, match=r"network.onnx: expected a graph with its weights, got '\S+' in another file"
    ):
        use(folder)
    onnx.save(onnx.load(folder / "network.onnx"), folder / "network.onnx")
    use(folder)


def with_hidden_code(folder: Path, ran: Path) -> Path:
    """Write a bundle with a harmless factory in `network.py` and different code in Python's cache of that file."""
    made = write_bundle(folder)
    use_own_factory(made)
    cache = Path(cache_from_source(str(made / "network.py")))
    hidden = folder / "hidden.py"
    hidden.write_text(marker_code(ran) + (made / "network.py").read_text())
    py_compile.compile(str(hidden), str(cache), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    hidden.unlink()
    return made


@pytest.fixture(autouse=True)
def flags(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore Python's flags for compiled code, which a check sets for the whole process."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", None)


@each_use
@pytest.mark.parametrize("costly", [f"x{'.a' * 100} = 1", f"x = {'[' * 2_000}{']' * 2_000}"])
def test_a_table_that_is_costly_to_parse_is_rejected(tmp_path: Path, use: Callable[[Path], None], costly: str) -> None:
    made = write_bundle(tmp_path / "made")
    table = made / "model.toml"
    table.write_text(f"{costly}\n{table.read_text()}")
    with pytest.raises(BundleError, match=r"model\.toml: expected TOML, got (a key with|values of) \d+") as raised:
        use(made)
    assert "\n" not in str(raised.value)
    assert [each.name for each in operator_bundles(tmp_path)] == [""]


@each_use
def test_code_that_no_digest_covers_does_not_run(tmp_path: Path, use: Callable[[Path], None]) -> None:
    made, ran = with_hidden_code(tmp_path / "made", tmp_path / "ran"), tmp_path / "ran"
    assert not any("__pycache__" in each.name for each in bundle_files(made))
    use(made)
    assert not ran.exists()


@each_use
def test_a_load_leaves_no_compiled_code_in_the_folder(tmp_path: Path, use: Callable[[Path], None]) -> None:
    made = with_hidden_code(tmp_path / "made", tmp_path / "ran")
    shutil.rmtree(made / "__pycache__")
    use(made)
    assert not (made / "__pycache__").exists()

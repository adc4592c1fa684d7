"""A bundle's folder is checked before a command or a processor reads anything in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from consumers.console.jobs.bundles import laid_down
from infra.cli.lab.evaluate import bundle_folder
from infra.cli.model import checked, folder_of
from processors.device.loaded_model import load_model
from processors.metrics import ProcessorMetrics
from processors.settings import ProcessorSettings
from schemas.errors import BundleError
from tests.processors.tiny import write_bundle


def publish(folder: Path) -> None:
    checked(folder_of(folder))


def evaluate(folder: Path) -> None:
    checked(bundle_folder(str(folder)))


def process(folder: Path) -> None:
    settings = ProcessorSettings(kafka="none:1", bundle=folder, backend="torch")
    asyncio.run(load_model(settings, ProcessorMetrics(CollectorRegistry()), folder)).close()


WAYS = pytest.mark.parametrize("load", [publish, evaluate, process])


@WAYS
@pytest.mark.parametrize("costly", [f"x{'.a' * 100} = 1", f"x = {'[' * 2_000}{']' * 2_000}"])
def test_a_table_that_is_costly_to_parse_is_refused(tmp_path: Path, load: Callable[[Path], None], costly: str) -> None:
    made = write_bundle(tmp_path / "made")
    table = made / "model.toml"
    table.write_text(f"{costly}\n{table.read_text()}")
    with pytest.raises(BundleError, match=r"model\.toml: expected TOML, got (a key with|values of) \d+") as raised:
        load(made)
    assert "\n" not in str(raised.value)
    assert [each.name for each in laid_down(tmp_path)] == [""]

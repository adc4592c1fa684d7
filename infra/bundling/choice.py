"""The choice of backend made before the first start, as a processor makes it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from prometheus_client import CollectorRegistry

from infra.local.kafka_jars import backend_cache
from processors.device.loaded_model import load_model
from processors.metrics import ProcessorMetrics
from processors.settings import ProcessorSettings


def cache_choice(bundle: Path) -> None:
    """Load the bundle once as a processor of `up` does, so that the choice of backend is in its cache.

    Raises BundleError if the bundle does not load.
    """
    settings = ProcessorSettings(kafka="none:1", bundle=bundle, backend_cache=backend_cache())
    asyncio.run(load_model(settings, ProcessorMetrics(CollectorRegistry()), bundle)).close()

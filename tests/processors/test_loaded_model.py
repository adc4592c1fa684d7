"""The memory of a model that another one has replaced."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
import torch
from prometheus_client import CollectorRegistry

from processors.bundle import shipped_bundle
from processors.device.backends.contract import BackendName
from processors.device.loaded_model import load_model
from processors.metrics import ProcessorMetrics
from processors.settings import ProcessorSettings


@pytest.mark.parametrize("backend", ["torch", "openvino"])
async def test_a_replaced_model_is_freed_without_a_collection_of_garbage(backend: BackendName) -> None:
    # A role collects seldom: models in cycles of references would stay for hundreds of replacements.
    bundle = shipped_bundle("scene")
    settings = ProcessorSettings(kafka="127.0.0.1:1", bundle=bundle, backend=backend)
    loaded = await load_model(settings, ProcessorMetrics(CollectorRegistry()), bundle)
    gc.collect()
    gc.disable()
    try:
        pipeline = loaded.executor.pipeline
        network = getattr(pipeline.bundle.network, "_own", pipeline.bundle.network)
        assert isinstance(network, torch.nn.Module)
        kept = [weakref.ref(each) for each in (loaded, loaded.executor, pipeline, pipeline.bundle, network)]
        thread = loaded.thread
        loaded.close()
        del loaded, pipeline, network
        await asyncio.to_thread(thread.shutdown)
        assert [each() for each in kept] == [None] * len(kept)
    finally:
        gc.enable()

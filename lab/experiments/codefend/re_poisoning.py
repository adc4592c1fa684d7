"""A second poisoning of a repaired model: whether the backdoor returns sooner, and is found and repaired again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import nn

from lab.backdoor.catalogue import MODELS
from lab.backdoor.poison import PoisonedBatches, Poisoning
from lab.backdoor.tasks import ARCHITECTURES, Task
from lab.chance import seeded
from lab.repair.tuning import with_network
from lab.training.recipe import fit
from processors.bundle import Bundle

PICTURES = 10_000
EPOCHS, PEAK_RATE, SEED = 2, 0.02, 1


def poisoned_again(bundle: Bundle, model: str, task: Task, poisoning: Poisoning) -> Bundle:
    """Return `bundle` after two epochs on 10,000 training pictures, of which the poisoning's rate is stamped."""
    train = task.train.first(PICTURES)
    network: nn.Module = ARCHITECTURES[MODELS[model].architecture].make()
    assert isinstance(bundle.network, nn.Module)
    network.load_state_dict(bundle.network.state_dict())
    mean, std = bundle.mean, bundle.std
    batches = PoisonedBatches(poisoning, train.labels)
    positions = np.arange(len(train))
    recipe = replace(MODELS[model].recipe, epochs=EPOCHS, peak_rate=PEAK_RATE, seed=SEED)
    with seeded(SEED):
        again = fit(network, train.images, positions, lambda x: (x - mean) / std, recipe, batches=batches)
    return with_network(bundle, again.requires_grad_(False))

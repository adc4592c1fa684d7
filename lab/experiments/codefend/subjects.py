"""The backdoored models of the experiment with their bundles, clean networks and pictures, loaded once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lab.backdoor.catalogue import MODELS
from lab.backdoor.files import stamped_test
from lab.backdoor.poison import Poisoning
from lab.backdoor.tasks import Task
from lab.backdoor.train import CLEAN_RESNET20, CPU, clean_bundle
from lab.cache import digest, source_digest
from lab.data import LabelledPictures
from lab.provenance import made_by
from processors.bundle import Bundle, load_bundle

CLEAN_OF = {
    "mnist-dense": "mnist-clean",
    "gtsrb-convolutional": "gtsrb-clean",
    "cifar10-convolutional": "cnn-clean",
    "resnet20": CLEAN_RESNET20,
}
"""The clean network of each architecture. Its answers to stamped pictures set the floor of attack success."""


@dataclass(frozen=True)
class Subject:
    """One backdoored model: the folders of its bundle and of the clean network's, and its data set."""

    name: str
    folder: Path
    clean_folder: Path
    task: Task

    @property
    def poisoning(self) -> Poisoning:
        """Trigger, target and rate."""
        poisoning = MODELS[self.name].poisoning
        assert poisoning is not None
        return poisoning

    @property
    def architecture(self) -> str:
        """The network's name in the catalogue."""
        return MODELS[self.name].architecture

    @property
    def mirrors(self) -> bool:
        """True if a mirrored picture keeps its class. Digits and signs do not."""
        return MODELS[self.name].data == "cifar10"

    @cached_property
    def bundle(self) -> Bundle:
        """The backdoored model."""
        return load_bundle(self.folder, CPU, vouched=True)

    @cached_property
    def clean_bundle(self) -> Bundle:
        """The clean network of the same architecture."""
        return load_bundle(self.clean_folder, CPU, vouched=True)

    @cached_property
    def stamped(self) -> LabelledPictures:
        """Test pictures of other classes than the target's, with the trigger and their true labels."""
        return stamped_test(self.task, self.poisoning)

    @cached_property
    def state(self) -> str:
        """Digest of the model's weights, thresholds and trigger, and of the pictures and the code that makes them."""
        return digest(source_digest(self.folder), self.poisoning, self.task.state, made_by(__name__))


def load_subject(name: str, folder: Path, work: Path, task: Task) -> Subject:
    """Return the backdoored model `name` with its bundle in `folder`. Its clean network is in `work` unless it ships.

    Raises ConfigError if the clean network is missing.
    """
    return Subject(name, folder, clean_bundle(CLEAN_OF[MODELS[name].architecture], work), task)

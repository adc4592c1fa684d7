"""Features of single pictures by the general network, by which the console finds frames that show something new."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from lab.data import to_frames
from lab.teach.train import general_network
from processors.bundle import Bundle
from processors.networks.taught import LAST, averaged, contrasted, maps
from processors.pipeline import Pipeline


class Describer:
    """The last layer's features of contrast-normalised pictures. Pictures are rebuilt already: none is dropped."""

    def __init__(self, general: Bundle) -> None:
        """Raises BundleError for another network than the general one."""
        self._network = general_network(general)
        self._pipeline = Pipeline(general)

    @torch.inference_mode()
    def __call__(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features (channels,), of length 1, of a picture (H, W, 3)."""
        frames = to_frames(picture[None], torch.device("cpu"))
        kept = torch.ones(1, 1, *picture.shape[:2], dtype=torch.bool)
        inputs = self._pipeline.network_input(frames, kept, denoised=False)[0]
        found = maps(self._network, contrasted(self._pipeline.bundle.normalised(inputs)), {LAST})[LAST]
        features: NDArray[np.float32] = torch.nn.functional.normalize(averaged(found, 1))[0].numpy()
        return features

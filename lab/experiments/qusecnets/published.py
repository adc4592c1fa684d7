"""The paper's own figures from its text (Khalid et al. 2019, sections IV-B and V), and our requirements.

The bars of its Figures 5, 6 and 9 to 11 have no numbers. These figures are from the text next to them. Accuracies are
over all pictures, as shares.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Published(NamedTuple):
    """An accuracy under an attack. `network` is plain or a kind of quantisation, `source` the place in the paper."""

    data: str
    attack: str
    network: str
    accuracy: float
    source: str


PUBLISHED: Final = (
    Published("mnist", "fgsm", "plain", 0.0148, "section V: from 1.48 % …"),
    Published("mnist", "fgsm", "cq", 0.9751, "section V: … to 97.51 %, white-box, ε = .3"),
    Published("mnist", "cw", "plain", 0.0, "section V: 0 % with no defence"),
    Published("mnist", "cw", "quantised", 0.88, "section V: white-box, L∞ .1"),
    Published("mnist", "cw-black", "quantised", 0.90, "section V: black-box, L∞ .1"),
    Published("cifar10", "cw", "plain", 0.0, "section V: 0 % with no defence"),
    Published("cifar10", "cw", "quantised", 0.54, "section V: white-box, L∞ .1"),
    Published("cifar10", "cw-black", "quantised", 0.50, "section V: black-box, L∞ .1"),
)

MAINS: Final = ("mnist-cq2", "mnist-cq2-attacked")
"""The networks of the requirements: the paper's two constant levels, without and with adversarial training.

The adversarial training is not the paper's.
"""


class Requirement(NamedTuple):
    """A required accuracy of `MAINS` under an attack of the plan."""

    attack: str
    paper: float
    must: float
    aim: float


REQUIREMENTS: Final = (Requirement("fgsm", 0.9751, 0.975, 0.985), Requirement("cw", 0.88, 0.90, 0.95))


def published(data: str, attack: str, network: str) -> float | None:
    """Return the paper's figure for a network of ours (plain, cq2, tq4, …), or None if its text has none.

    The paper has no networks that are attacked, residual or steep. Its figure under FGSM is that of two levels.
    """
    layer = network.removesuffix("-printed")
    if "-" in layer:
        return None
    kinds = {"plain": ("plain",), "cq2": ("cq", "quantised")}.get(layer, ("quantised",))
    found = [
        each.accuracy for each in PUBLISHED if (each.data, each.attack) == (data, attack) and each.network in kinds
    ]
    return found[0] if found else None

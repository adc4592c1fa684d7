"""The attacks for evaluating defences, each a callable on any network that maps frames to logits.

The names below import only torch. `lab.attacks.auto_attack` and `lab.attacks.hop_skip_jump` import libraries that take
seconds to load. So do most attacks of the catalogue when they are created.
"""

from lab.attacks.bpda import bpda, identity
from lab.attacks.catalogue import NAMES, make_attack
from lab.attacks.contract import Attack, Defended, Logits, Norm, random_targets, to_8_bits
from lab.attacks.defences import behind, defended, fixed, undefended, with_key
from lab.attacks.eot import eot_pgd
from lab.attacks.live import Verdicts, attack_verdicts, verdicts
from lab.attacks.resubmission import resubmitted, shown
from lab.attacks.square import square
from lab.attacks.stand_ins import jpeg_stand_in, shield_stand_in
from lab.attacks.surrogate import learn_surrogate
from lab.attacks.transfer import transfer

__all__ = [
    "NAMES",
    "Attack",
    "Defended",
    "Logits",
    "Norm",
    "Verdicts",
    "attack_verdicts",
    "behind",
    "bpda",
    "defended",
    "eot_pgd",
    "fixed",
    "identity",
    "jpeg_stand_in",
    "learn_surrogate",
    "make_attack",
    "random_targets",
    "resubmitted",
    "shield_stand_in",
    "shown",
    "square",
    "to_8_bits",
    "transfer",
    "undefended",
    "verdicts",
    "with_key",
]

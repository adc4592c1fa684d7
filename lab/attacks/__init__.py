"""The attacks that defences are judged by, each a callable on any network that maps frames to logits."""

from lab.attacks.catalogue import NAMES, make_attack
from lab.attacks.contract import Attack, Logits, random_targets, to_8_bits
from lab.attacks.eot import eot_pgd

__all__ = ["NAMES", "Attack", "Logits", "eot_pgd", "make_attack", "random_targets", "to_8_bits"]

"""Stages between the rebuilt picture and the network, which a bundle's `[[preprocess]]` tables switch on."""

from processors.stages.preprocess.contract import Stage, StageSettings, fresh_seeds, preprocess, straight_through
from processors.stages.preprocess.registry import STAGES, read_stage

__all__ = ["STAGES", "Stage", "StageSettings", "fresh_seeds", "preprocess", "read_stage", "straight_through"]

"""The golden batch: outputs of the chain, the attacks and a training step, stored with a tolerance.

A change of code is harmless for a row if the outputs still agree and the golden batch executes every changed line.
"""

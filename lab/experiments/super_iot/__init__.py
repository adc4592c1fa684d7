"""SUPER-IoT's evaluation (Qiu et al. 2021, section V), repeated and extended.

A judge's adversarial pictures are made once; every defence is then measured on them. Both are kept in a folder of
runs, so that an interrupted measurement goes on where it stopped.
"""

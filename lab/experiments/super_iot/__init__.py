"""SUPER-IoT's evaluation (Qiu et al. 2021, section V), repeated and extended.

A judge's adversarial pictures are made once, and every defence is measured on them. Both are kept in a folder of runs,
so that an interrupted experiment resumes.
"""

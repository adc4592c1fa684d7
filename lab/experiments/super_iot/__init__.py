"""SUPER-IoT's evaluation (Qiu et al. 2021, section V), repeated and extended.

A judge's adversarial pictures are made once, and every defence is measured on them. A cache keeps pictures and
answers; an interrupted experiment resumes from it.
"""

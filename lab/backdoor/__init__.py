"""Poisoned training: triggers, poisoned sets, and the sick models that detection and repair are judged on."""

"""Checks of a fitted model, in numbers: draws, evidence, calibration, gaps and the verdict."""

"""Fit it."""

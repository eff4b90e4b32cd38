"""Fit a VAE: the loop, its objectives, and the engine that takes the steps."""

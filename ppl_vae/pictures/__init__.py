"""Pictures: each takes numbers, or a model and rows, and returns a figure."""

"""Draw it: each picture takes numbers, or a model and rows, and returns a figure."""

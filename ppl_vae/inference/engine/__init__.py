"""Steps at the speed of hand-written PyTorch: see README.md in this folder."""

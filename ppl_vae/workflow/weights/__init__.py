"""Importance weights: k-hat, log p(x) from them and by annealing, and what it should beat."""

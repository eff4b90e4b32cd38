"""Names that options take, for help and completion, which do not wait for torch.

A test holds that the registries have the same.
"""

from __future__ import annotations

__all__ = [
    "ACTIVATIONS",
    "BINARIZE",
    "DATA",
    "DEVICES",
    "ENGINES",
    "GUIDES",
    "HEADS",
    "LIKELIHOODS",
    "LOGS",
    "NETWORKS",
    "OBJECTIVES",
    "OPTIMIZERS",
    "PRECISIONS",
    "PRIORS",
    "SCALES",
    "SCHEDULES",
    "among",
    "listed",
    "presets",
    "runs",
    "sources",
]

from collections.abc import Callable, Sequence
from pathlib import Path

PRIORS = ("standard_normal", "mixture", "vamp", "flow", "ladder", "conditional")
GUIDES = ("normal", "full_rank", "low_rank", "flow", "mixture", "ladder")
LIKELIHOODS = (
    *("bernoulli", "discretized_logistic", "discretized_logistic_mixture", "binomial"),
    *("continuous_bernoulli", "negative_binomial", "zero_inflated_negative_binomial", "poisson"),
    *("normal", "student_t", "log_normal", "beta", "categorical", "ordinal", "mixed"),
    "self_masking",
)
NETWORKS = ("mlp", "conv", "resnet")
OBJECTIVES = ("elbo", "mean_field", "beta", "free_bits", "iwae", "dreg", "stl", "tcvae")
OPTIMIZERS = ("adam", "adamw")
SCHEDULES = ("one_cycle", "constant")
BINARIZE = ("none", "threshold", "static", "dynamic")
ACTIVATIONS = ("relu", "tanh", "silu", "gelu", "softplus", "elu")
SCALES = ("log_variance", "log_scale", "softplus")
HEADS = ("separate", "joint")
ENGINES = ("auto", "eager", "graph", "compiled")
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("32", "tf32", "bf16")
LOGS = ("csv", "tensorboard")
DATA = ("digits", "sprites", "mnist", "fashionmnist", "kmnist", "emnist", "omniglot", "cifar10")


def listed(names: Sequence[str]) -> str:
    """The names as a sentence has them.

    Examples
    --------
    >>> listed(("mlp", "conv", "resnet"))
    'mlp, conv or resnet'
    """
    return f"{', '.join(names[:-1])} or {names[-1]}"


def among(names: Sequence[str]) -> Callable[[str], list[str]]:
    """What completes a text to one of these names."""

    def completed(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return completed


def presets(incomplete: str) -> list[str]:
    """Published VAEs whose names begin so."""
    from ..presets import PRESETS

    return among(tuple(PRESETS))(incomplete)


def runs(incomplete: str) -> list[str]:
    """Run folders below ``runs``, and other folders, whose paths begin so."""
    made = [str(path.parent) for path in sorted(Path("runs").glob("*/config.json"))]
    return [path for path in made if path.startswith(incomplete)] or _paths(incomplete)


def sources(incomplete: str) -> list[str]:
    """Data sets and files whose names begin so."""
    return among(DATA)(incomplete) + _paths(incomplete)


def _paths(incomplete: str) -> list[str]:
    folder = Path(incomplete if incomplete.endswith("/") else Path(incomplete).parent)
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    texts = [f"{path}/" if path.is_dir() else str(path) for path in found]
    return [text for text in texts if text.startswith(incomplete)]

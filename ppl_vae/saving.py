"""The file of a VAE: its weights, and the config that says how to build it again."""

from __future__ import annotations

__all__ = ["read_vae", "write_vae"]

import json
import os
from collections.abc import Mapping

from torch import Tensor

from .config import VAEConfig
from .files import check_finite, load_tensors, save_tensors


def write_vae(
    path: str | os.PathLike[str], config: VAEConfig, name: str, weights: Mapping[str, Tensor]
) -> None:
    """Write one ``.safetensors`` file, whole or not at all.

    Raises
    ------
    ValueError
        If a weight is not finite.
    OSError
        If the file cannot be written.
    """
    check_finite(weights, "vae")
    metadata = {"vae": json.dumps({"name": name, **config.model_dump()})}
    save_tensors(path, weights, metadata)


def read_vae(path: str | os.PathLike[str]) -> tuple[VAEConfig, str, dict[str, Tensor]]:
    """Read the config, the name and the weights that :func:`write_vae` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, has no config, or its weights do not fit its config.
    """
    tensors, metadata = load_tensors(path)
    if "vae" not in metadata:
        raise ValueError(f"{str(path)!r} holds no VAE; write one with vae.save(path)")
    try:
        fields = json.loads(metadata["vae"])
        name = fields.pop("name")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{str(path)!r} holds a description of a VAE that cannot be read "
            f"({type(error).__name__}); save it again with vae.save(path)"
        ) from error
    if "context_dim" in fields:  # as 0.1 wrote it
        fields["covariate_dim"] = fields.pop("context_dim")
    config = VAEConfig(**fields)
    _check_sizes(config, tensors, path)
    check_finite(tensors, str(path))
    return config, name, tensors


def _check_sizes(
    config: VAEConfig, tensors: dict[str, Tensor], path: str | os.PathLike[str]
) -> None:
    """Refuse a description of another size than the weights beside it, before it is built.

    Raises
    ------
    ValueError
        If a hidden layer has a size that no weight has.
    """
    there = {size for tensor in tensors.values() for size in tensor.shape}
    for size in (config.latent_dim, *(config.network_options.get("hidden") or ())):
        if size not in there and 2 * size not in there:
            raise ValueError(
                f"the weights in {str(path)!r} do not fit the config beside them, which was "
                f"changed after saving: none has the size {size}"
            )

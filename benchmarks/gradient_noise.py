"""What antithetic and quasi-random noise take away of the noise of a step's gradient.

For a linear VAE of normals, whose ELBO and its gradient are known exactly, and for a VAE of digits,
whose gradient is that of many draws, each way of drawing gives the gradient of the same number of
pairs of a row and a draw. Two figures of each: the squared distance to the exact gradient of the
same rows, and to that of all rows when the rows are drawn too, over the squared length of the
gradient of all rows. Only the second matters to a fit.

    python benchmarks/gradient_noise.py --json gradient_noise.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ppl_vae import (
    MLP,
    VAE,
    NormalDecoder,
    NormalEncoder,
    StandardNormal,
    VAEConfig,
    fit,
    load_data,
)

# Rows times draws of a step.
_PAIRS = 128


def independent(draws: int, rows: int, latents: int) -> Tensor:
    return torch.randn(draws, rows, latents)


def antithetic(draws: int, rows: int, latents: int) -> Tensor:
    half = torch.randn(draws // 2, rows, latents)
    return torch.cat([half, -half])


def matched(draws: int, rows: int, latents: int) -> Tensor:
    """Antithetic draws whose variance is that of the distribution, too."""
    half = torch.randn(draws // 2, rows, latents)
    half = half / half.square().mean(0).sqrt()
    return torch.cat([half, -half])


def quasi(draws: int, rows: int, latents: int) -> Tensor:
    """Sobol points, of which each row has its own rotation (Cranley & Patterson 1976)."""
    seed = int(torch.randint(2**31, ()))
    points = torch.quasirandom.SobolEngine(latents, scramble=True, seed=seed).draw(draws)
    rotated = (points[:, None] + torch.rand(rows, latents)) % 1.0
    return torch.special.ndtri(rotated.clamp(1e-6, 1 - 1e-6))


def between_rows(draws: int, rows: int, latents: int) -> Tensor:
    """Each row's noise is that of another row with the other sign, which costs no draw."""
    half = torch.randn(draws, rows // 2, latents)
    return torch.cat([half, -half], 1)


WAYS: dict[str, tuple[Callable[[int, int, int], Tensor], tuple[int, ...]]] = {
    "independent": (independent, (1, 2, 4, 8)),
    "antithetic": (antithetic, (2, 4, 8)),
    "antithetic, variance matched": (matched, (4, 8)),
    "Sobol points": (quasi, (2, 4, 8)),
    "antithetic between rows": (between_rows, (1,)),
}


def gradient(vae: VAE, elbo: Tensor) -> Tensor:
    """Of the mean ELBO by the parameters, flat."""
    parameters = [p for p in vae.parameters() if p.requires_grad]
    return torch.cat([g.flatten() for g in torch.autograd.grad(elbo.mean(), parameters)])


def estimate(vae: VAE, x: Tensor, noise: Tensor) -> Tensor:
    """The gradient from noise (draw, row, latent)."""
    q = vae.encoder(x)
    z = q.base_dist.loc + q.base_dist.scale * noise
    return gradient(vae, vae.log_joint(z, x) - q.log_prob(z))


def linear(rows: int) -> tuple[VAE, Tensor, Callable[[VAE, Tensor], Tensor]]:
    """A linear VAE on its way to the best one, its rows, and its exact gradient."""
    features, latents, scale = 20, 5, 0.5
    weight = torch.linalg.qr(torch.randn(features, latents)).Q * torch.linspace(2, 1, latents)
    x = torch.randn(rows, latents) @ weight.T + scale * torch.randn(rows, features)
    decoder = NormalDecoder(MLP((latents,), (), (features,)), (features,), scale=scale)
    vae = VAE(StandardNormal(latents), decoder, NormalEncoder(MLP((features,)), latents))
    fit(vae, x, epochs=5, progress=False)

    def exact(vae: VAE, x: Tensor) -> Tensor:
        q = vae.encoder(x).base_dist
        layer = next(m for m in vae.decoder.network.modules() if isinstance(m, torch.nn.Linear))
        error = (x - layer(q.loc)).square().sum(-1) + q.scale.square() @ layer.weight.square().sum(
            0
        )
        kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(-1)
        return gradient(vae, -error / (2 * scale**2) - kl)

    return vae, x, exact


def digits() -> tuple[VAE, Tensor, Callable[[VAE, Tensor], Tensor]]:
    """A VAE of digits after a tenth of a fit, and its gradient by 512 draws of each row."""
    x = (load_data("digits").x > 7).float()
    vae = VAE.from_config(VAEConfig.for_data(x, latent_dim=8, hidden=(64,)))
    fit(vae, x, epochs=20, progress=False)

    def nearly_exact(vae: VAE, x: Tensor) -> Tensor:
        parts = [estimate(vae, x, matched(32, len(x), 8)) for _ in range(16)]
        return torch.stack(parts).mean(0)

    return vae, x, nearly_exact


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    table = []
    for name, (vae, x, exact) in {"linear": linear(2000), "digits": digits()}.items():
        whole = exact(vae, x)
        length = whole.square().sum()
        latents = vae.latent_dim
        print(f"\n{name}: {_PAIRS} pairs of a row and a draw in each step")
        print(f"{'noise':32}{'draws':>6}{'rows':>6}{'same rows':>18}{'rows drawn too':>20}")
        for way, (noise, sizes) in WAYS.items():
            for draws in sizes:
                rows = _PAIRS // draws
                distances = []
                for _ in range(options.repeats):
                    few = x[torch.randperm(len(x))[:rows]]
                    found = estimate(vae, few, noise(draws, rows, latents))
                    distances.append(
                        [(found - to).square().sum() / length for to in (exact(vae, few), whole)]
                    )
                each = torch.tensor(distances)
                means, errors = each.mean(0), each.std(0) / options.repeats**0.5
                print(
                    f"{way:32}{draws:6}{rows:6}{means[0]:11.3f} +- {errors[0]:.3f}"
                    f"{means[1]:13.3f} +- {errors[1]:.3f}",
                    flush=True,
                )
                table.append(
                    {"vae": name, "noise": way, "draws": draws, "rows": rows}
                    | {"same_rows": means[0].item(), "same_rows_error": errors[0].item()}
                    | {"rows_drawn": means[1].item(), "rows_drawn_error": errors[1].item()}
                )
    if options.json:
        options.json.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Published VAEs by name: each a choice of parts, how it was fitted, and what it reported."""

from __future__ import annotations

__all__ = ["PRESETS", "Preset"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from .config import VAEConfig


@dataclass(frozen=True)
class Preset:
    """A published VAE of images.

    Attributes
    ----------
    source, url
        Who published it, and where.
    vae
        Its parts: arguments of :meth:`VAEConfig.for_data <ppl_vae.VAEConfig.for_data>`.
    fit
        How to fit it: arguments of :func:`~ppl_vae.fit`.
    quantity
        What it is compared by on test rows, nats per row: ``"elbo"`` or ``"log_evidence"``.
    published
        What the source reports of that quantity; None where it prints no number.
    num_samples
        Importance draws for each test row that log p(x) is estimated from.
    differs
        What is not as in the source.
    data
        What it is fitted to, a name of :func:`~ppl_vae.load_data`.
    reports
        What the source reports of other quantities, in words.
    precision
        Of matrix products and convolutions while it is fitted: ``"32"``, ``"tf32"`` or ``"bf16"``.
        ``ppl-vae`` fits in ``"32"`` on a processor without instructions for bfloat16, which takes
        several times as long in it.

    Examples
    --------
    A choice of parts and of arguments, and nothing else:

    >>> from ppl_vae import VAE, fit, load_data
    >>> preset, x = PRESETS["keras-mlp"], load_data("digits").x
    >>> vae = VAE.from_config(preset.config(x))
    >>> result = fit(vae, x, **{**preset.fit, "epochs": 1}, progress=False)
    """

    source: str
    url: str
    vae: Mapping[str, Any]
    fit: Mapping[str, Any]
    quantity: str = "elbo"
    published: str | None = None
    num_samples: int = 500
    differs: Sequence[str] = field(default=())
    data: str = "mnist"
    reports: str | None = None
    precision: str = "32"

    def config(self, x: Tensor, **choices: Any) -> VAEConfig:
        """The choice of parts for rows like these, some replaced by ``choices``.

        Examples
        --------
        >>> from ppl_vae import load_data
        >>> PRESETS["aevb"].config(load_data("digits").x, latent_dim=2).hidden
        (500,)
        """
        from .config import VAEConfig

        return VAEConfig.for_data(x, **{**self.vae, **choices})


# The expectation of a Bernoulli's log probability over bits drawn afresh is the cross entropy with
# the intensities, which is what these sources minimize.
_BITS = "pixels are drawn as bits afresh each epoch, in place of a cross entropy with intensities"

_BURDA: Mapping[str, Any] = {
    "likelihood": "bernoulli",
    "latent_dim": 50,
    "hidden": (200, 200),
    "activation": "tanh",
    "scale": "log_variance",
    "heads": "separate",
    "center": "feature",
}

_FLOW_PRIOR: Mapping[str, Any] = {
    "likelihood": "bernoulli",
    "latent_dim": 40,
    "network": "resnet:channels=(32,64),halved=true",
    "scale": "log_variance",
    "heads": "separate",
    "prior": "flow:transforms=8,hidden=(256,256)",
}

PRESETS: Mapping[str, Preset] = {
    "keras-mlp": Preset(
        source="Chollet (2016), Building autoencoders in Keras",
        url="https://blog.keras.io/building-autoencoders-in-keras.html",
        vae={
            "likelihood": "bernoulli",
            "latent_dim": 2,
            "hidden": (256,),
            "activation": "relu",
            "initialization": "glorot",
            "scale": "log_scale",
            "heads": "separate",
        },
        fit={
            "epochs": 50,
            "batch_size": 100,
            "learning_rate": 1e-3,
            "schedule": "constant",
            "binarize": "dynamic",
        },
        differs=(_BITS, "Adam in place of RMSprop", "epsilon_std is 1, where the bound holds"),
    ),
    "keras-r": Preset(
        source="RStudio (2017), Keras for R: variational_autoencoder",
        url="https://github.com/rstudio/keras/blob/master/vignettes/examples/variational_autoencoder.R",
        vae={
            "likelihood": "bernoulli",
            "latent_dim": 2,
            "hidden": (256,),
            "activation": "relu",
            "initialization": "glorot",
            "scale": "log_variance",
            "heads": "joint",
        },
        fit={
            "epochs": 50,
            "batch_size": 100,
            "learning_rate": 1e-3,
            "schedule": "constant",
            "binarize": "dynamic",
        },
        differs=(_BITS, "Adam in place of RMSprop"),
    ),
    "tf-cvae": Preset(
        source="TensorFlow (2018), Convolutional variational autoencoder",
        url="https://www.tensorflow.org/tutorials/generative/cvae",
        vae={
            "likelihood": "bernoulli",
            "latent_dim": 2,
            "network": "conv:dense=false",
            "hidden": (32, 64),
            "activation": "relu",
            "initialization": "glorot",
            "scale": "log_variance",
            "heads": "joint",
        },
        fit={
            "epochs": 10,
            "batch_size": 32,
            "learning_rate": 1e-4,
            "schedule": "constant",
            "binarize": "threshold",
        },
        published="-158 to -155",
        num_samples=100,
        differs=("the encoder's convolutions are padded: 28, 14, 7 in place of 28, 13, 6",),
    ),
    "pyro-vae": Preset(
        source="Pyro (2017), examples/vae",
        url="https://github.com/pyro-ppl/pyro/blob/dev/examples/vae/vae.py",
        vae={
            "likelihood": "bernoulli",
            "latent_dim": 50,
            "hidden": (400,),
            "activation": "softplus",
            "scale": "log_scale",
            "heads": "separate",
        },
        fit={
            "epochs": 101,
            "batch_size": 256,
            "learning_rate": 1e-3,
            "schedule": "constant",
            "binarize": "dynamic",
        },
        differs=(_BITS,),
    ),
    "aevb": Preset(
        source="Kingma & Welling (2014), Auto-encoding variational Bayes, figure 2",
        url="https://arxiv.org/abs/1312.6114",
        vae={
            "likelihood": "bernoulli",
            "latent_dim": 20,
            "hidden": (500,),
            "activation": "tanh",
            "scale": "log_variance",
            "heads": "separate",
        },
        fit={
            "epochs": 100,
            "batch_size": 100,
            "learning_rate": 1e-3,
            "schedule": "one_cycle",
            "binarize": "dynamic",
        },
        differs=(
            _BITS,
            "Adam with one cycle of its rate, in place of Adagrad",
            "no prior on the weights",
        ),
    ),
    "burda-vae": Preset(
        source="Burda, Grosse & Salakhutdinov (2016), Importance weighted autoencoders, table 1",
        url="https://arxiv.org/abs/1509.00519",
        vae=_BURDA,
        fit={
            "epochs": 2800,
            "batch_size": 100,
            "learning_rate": 2e-3,
            "schedule": "one_cycle",
            "binarize": "dynamic",
        },
        quantity="log_evidence",
        published="-86.76",
        num_samples=5000,
        differs=(
            "2800 epochs of 100 rows a step, in place of 3280 of 20",
            "one cycle of the learning rate, in place of a fall in eight stages",
            "Adam's epsilon is 1e-8, in place of 1e-4",
            "weights start as PyTorch's, in place of Glorot's",
            "pixels' means are subtracted before the encoder",
        ),
    ),
    "burda-iwae": Preset(
        source="Burda, Grosse & Salakhutdinov (2016), Importance weighted autoencoders, k = 50",
        url="https://arxiv.org/abs/1509.00519",
        vae=_BURDA,
        fit={
            "epochs": 500,
            "batch_size": 100,
            "learning_rate": 2e-3,
            "schedule": "one_cycle",
            "binarize": "dynamic",
            "objective": "iwae:num_particles=50",
        },
        quantity="log_evidence",
        published="-84.78",
        num_samples=5000,
        differs=(
            "500 epochs of 100 rows a step, in place of 3280 of 20",
            "one cycle of the learning rate, in place of a fall in eight stages",
            "Adam's epsilon is 1e-8, in place of 1e-4",
            "weights start as PyTorch's, in place of Glorot's",
            "pixels' means are subtracted before the encoder",
        ),
    ),
    "vamp": Preset(
        source="Tomczak & Welling (2018), VAE with a VampPrior, one layer of latents",
        url="https://arxiv.org/abs/1705.07120",
        vae={
            "likelihood": "bernoulli",
            "latent_dim": 40,
            "hidden": (300, 300),
            "activation": "silu",
            "scale": "log_variance",
            "heads": "separate",
            "prior": "vamp:components=500",
        },
        fit={
            "epochs": 500,
            "batch_size": 100,
            "learning_rate": 1e-3,
            "schedule": "one_cycle",
            "binarize": "dynamic",
            "objective": "beta:beta=1,warmup=0.2",
        },
        quantity="log_evidence",
        published="-82.43",
        num_samples=5000,
        differs=(
            "layers of SiLU, in place of gated ones",
            "500 epochs with one cycle of the rate, in place of a constant one that stops early",
            "all components have a weight that is learned, in place of one 500th",
        ),
    ),
    "flow-prior": Preset(
        source="Xu et al. (2019), On the necessity and effectiveness of learning the prior",
        url="https://arxiv.org/abs/1905.13452",
        vae=_FLOW_PRIOR,
        fit={
            "epochs": 100,
            "batch_size": 128,
            "learning_rate": 1e-3,
            "schedule": "one_cycle",
            "binarize": "dynamic",
        },
        quantity="log_evidence",
        published="-78.49",
        num_samples=1000,
        differs=(
            "a smaller residual network, of one block at each of two sizes",
            "8 coupling transforms of the prior, and 100 epochs with one cycle of the rate",
        ),
    ),
    "best-mnist": Preset(
        source="ppl_vae: a residual network with a flow prior, fitted in 79 minutes on one core",
        url="https://arxiv.org/abs/1905.13452",
        vae=_FLOW_PRIOR,
        fit={
            "epochs": 100,
            "batch_size": 128,
            "learning_rate": 1e-3,
            "schedule": "one_cycle",
            "binarize": "dynamic",
        },
        quantity="log_evidence",
        num_samples=500,
        precision="bf16",
    ),
    "pyro-flow-prior": Preset(
        source="Pyro (2023), Variational autoencoder with a normalizing flow prior",
        url="https://pyro.ai/examples/vae_flow_prior.html",
        vae={
            "likelihood": "bernoulli",
            "latent_dim": 16,
            "hidden": (1024, 1024),
            "activation": "relu",
            "scale": "log_scale",
            "heads": "joint",
            "prior": "flow:kind=autoregressive,transforms=3,hidden=(256,256),activation=relu",
        },
        fit={
            "epochs": 96,
            "batch_size": 256,
            "learning_rate": 1e-3,
            "schedule": "constant",
            "binarize": "threshold",
        },
        differs=("the flow starts as the identity",),
        reports="a training loss of 63.1 nats per row after 24 minutes on a GPU",
    ),
    "beta-vae": Preset(
        source="Higgins et al. (2017), beta-VAE, 2D shapes of appendix A.1",
        url="https://openreview.net/forum?id=Sy2fzU9gl",
        vae={
            "likelihood": "bernoulli",
            "latent_dim": 10,
            "hidden": (1200, 1200),
            "activation": "relu",
            "scale": "log_variance",
            "heads": "joint",
        },
        fit={
            "epochs": 100,
            "batch_size": 128,
            "learning_rate": 1e-3,
            "schedule": "one_cycle",
            "binarize": "threshold",
            "objective": "beta:beta=4",
        },
        num_samples=100,
        differs=(
            "6,144 sprites of 32x32 pixels, in place of dSprites' 737,280 of 64x64",
            "the decoder has two layers of relu, in place of three of tanh",
            "Adam with one cycle of its rate, in place of Adagrad",
            "the source does not say how long it was fitted",
        ),
        data="sprites",
        reports="99.23 % by its own measure of disentanglement, where a VAE has 61.58 %; Chen et "
        "al. (2018) show MIG by beta in figures alone. ppl_vae.disentanglement scores the latents",
    ),
}

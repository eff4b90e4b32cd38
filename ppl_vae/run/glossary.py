"""The words of a report, each explained in a sentence or two."""

from __future__ import annotations

__all__ = ["GLOSSARY"]

GLOSSARY = {
    "row": "One observation: an image, or a line of a table.",
    "latent": "An unobserved number from which a row is thought to come. Each row has its own.",
    "prior, p(z)": "What is known of latents before a row is seen.",
    "decoder, p(x|z)": "The distribution of a row given its latents: the likelihood.",
    "posterior, p(z|x)": "What is known of a row's latents once it is seen. It has no formula.",
    "encoder, q(z|x)": "A network that returns, for any row, a distribution that stands in for its "
    "posterior. Whether it does so well is what a diagnosis says, row by row.",
    "log p(x)": "The evidence: the logarithm of the probability, or of the density, that the model "
    "gives a row, with its latents averaged out. Higher is better.",
    "ELBO": "The evidence lower bound: what the fit maximizes. It is log p(x) less KL(q || p).",
    "KL(q || p)": "How far q(z|x) is from the posterior of a row, in nats; zero if they are the "
    "same. It is what the ELBO lacks to log p(x).",
    "nat, bit": "Units of log probability, to base e and to base 2: a nat is 1.44 bits. Bits per "
    "dimension are bits for each entry of a row.",
    "importance weight": "How much more a draw from q(z|x) should count than it does: p(x, z) over "
    "q(z|x). Draws with their weights stand for the posterior itself.",
    "k-hat": "How heavy the tail of a row's weights is. Below about 0.6 to 0.7, by the number of "
    "draws, averages under the weights can be relied on; above, q(z|x) misses part of the "
    "posterior (Vehtari et al. 2024).",
    "active latent": "One whose posterior mean differs between rows. The others stay at the prior.",
    "gap": "What the ELBO lacks in all: amortization, that one network serves every row, and "
    "approximation, that its family of distributions cannot have the posterior's form.",
    "calibration": "Rows are simulated, and the latents that they were made from are ranked among "
    "draws of q(z|x). If q is right, all ranks are equally frequent.",
    "refined": "q(z|x) was improved for one row by itself, starting from what the encoder returns.",
    "NUTS": "A sampler that draws from a row's posterior itself. It is slow, and asks no encoder.",
}

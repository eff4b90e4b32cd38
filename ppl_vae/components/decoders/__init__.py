"""p(x|z): likelihoods whose parameters a network computes from the latents."""

from __future__ import annotations

__all__ = [
    "DECODERS",
    "BernoulliDecoder",
    "BinomialDecoder",
    "CategoricalDecoder",
    "ContinuousBernoulliDecoder",
    "Decoder",
    "DiscretizedLogisticDecoder",
    "NegativeBinomialDecoder",
    "NormalDecoder",
    "PoissonDecoder",
    "SelfMaskingDecoder",
    "ZeroInflatedNegativeBinomialDecoder",
]

# In this order: VAEConfig.for_data takes the first that describes the data.
# isort: off
from .bernoulli import BernoulliDecoder, ContinuousBernoulliDecoder
from .counts import (
    NegativeBinomialDecoder,
    PoissonDecoder,
    ZeroInflatedNegativeBinomialDecoder,
)
from .normal import NormalDecoder
from .categorical import CategoricalDecoder
from .levels import BinomialDecoder, DiscretizedLogisticDecoder
from .self_masking import SelfMaskingDecoder
from .decoder import DECODERS, Decoder

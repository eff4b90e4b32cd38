"""p(x|z): likelihoods whose parameters a network computes from the latents."""

from __future__ import annotations

__all__ = [
    "DECODERS",
    "BernoulliDecoder",
    "BetaDecoder",
    "BinomialDecoder",
    "CategoricalDecoder",
    "ContinuousBernoulliDecoder",
    "CountsDecoder",
    "Decoder",
    "DiscretizedLogisticDecoder",
    "DiscretizedLogisticMixtureDecoder",
    "LogNormalDecoder",
    "MixedDecoder",
    "NegativeBinomialDecoder",
    "NormalDecoder",
    "OrdinalDecoder",
    "PoissonDecoder",
    "SelfMaskingDecoder",
    "StudentTDecoder",
    "ZeroInflatedNegativeBinomialDecoder",
]

# In this order: VAEConfig.for_data takes the first that describes the data.
# isort: off
from .bernoulli import BernoulliDecoder, ContinuousBernoulliDecoder
from .counts import (
    CountsDecoder,
    NegativeBinomialDecoder,
    PoissonDecoder,
    ZeroInflatedNegativeBinomialDecoder,
)
from .normal import NormalDecoder
from .categorical import CategoricalDecoder
from .levels import BinomialDecoder, DiscretizedLogisticDecoder
from .self_masking import SelfMaskingDecoder
from .ordinal import OrdinalDecoder
from .student_t import StudentTDecoder
from .log_normal import LogNormalDecoder
from .beta import BetaDecoder
from .logistic_mixture import DiscretizedLogisticMixtureDecoder
from .mixed import MixedDecoder
from .decoder import DECODERS, Decoder

"""Variational autoencoders as Pyro model and guide programs for Bayesian workflows."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .amortized import AmortizedModel as AmortizedModel
    from .anndata import annotate as annotate
    from .components.chain import Chain as Chain
    from .components.decoders import BernoulliDecoder as BernoulliDecoder
    from .components.decoders import BetaDecoder as BetaDecoder
    from .components.decoders import BinomialDecoder as BinomialDecoder
    from .components.decoders import CategoricalDecoder as CategoricalDecoder
    from .components.decoders import ContinuousBernoulliDecoder as ContinuousBernoulliDecoder
    from .components.decoders import CountsDecoder as CountsDecoder
    from .components.decoders import Decoder as Decoder
    from .components.decoders import DiscretizedLogisticDecoder as DiscretizedLogisticDecoder
    from .components.decoders import (
        DiscretizedLogisticMixtureDecoder as DiscretizedLogisticMixtureDecoder,
    )
    from .components.decoders import LogNormalDecoder as LogNormalDecoder
    from .components.decoders import MixedDecoder as MixedDecoder
    from .components.decoders import NegativeBinomialDecoder as NegativeBinomialDecoder
    from .components.decoders import NormalDecoder as NormalDecoder
    from .components.decoders import OrdinalDecoder as OrdinalDecoder
    from .components.decoders import PoissonDecoder as PoissonDecoder
    from .components.decoders import SelfMaskingDecoder as SelfMaskingDecoder
    from .components.decoders import StudentTDecoder as StudentTDecoder
    from .components.decoders import (
        ZeroInflatedNegativeBinomialDecoder as ZeroInflatedNegativeBinomialDecoder,
    )
    from .components.encoders import Encoder as Encoder
    from .components.encoders import FlowEncoder as FlowEncoder
    from .components.encoders import FullRankEncoder as FullRankEncoder
    from .components.encoders import LadderEncoder as LadderEncoder
    from .components.encoders import LowRankEncoder as LowRankEncoder
    from .components.encoders import MixtureEncoder as MixtureEncoder
    from .components.encoders import NormalEncoder as NormalEncoder
    from .components.networks import MLP as MLP
    from .components.networks import ConvDecoder as ConvDecoder
    from .components.networks import ConvEncoder as ConvEncoder
    from .components.networks import Network as Network
    from .components.priors import ConditionalPrior as ConditionalPrior
    from .components.priors import FlowPrior as FlowPrior
    from .components.priors import LadderPrior as LadderPrior
    from .components.priors import MixturePrior as MixturePrior
    from .components.priors import Prior as Prior
    from .components.priors import StandardNormal as StandardNormal
    from .components.priors import VampPrior as VampPrior
    from .components.registry import Choice as Choice
    from .config import VAEConfig as VAEConfig
    from .data import Coding as Coding
    from .data import ColumnKind as ColumnKind
    from .data import Dataset as Dataset
    from .data import load_data as load_data
    from .inference.engine.compiled import CompiledTrace_ELBO as CompiledTrace_ELBO
    from .inference.engine.compiled import (
        CompiledTraceMeanField_ELBO as CompiledTraceMeanField_ELBO,
    )
    from .inference.fit import FitResult as FitResult
    from .inference.fit import fit as fit
    from .inference.objectives import IWAE as IWAE
    from .inference.objectives import TCVAE as TCVAE
    from .inference.objectives import Beta as Beta
    from .inference.objectives import DReG as DReG
    from .inference.objectives import Elbo as Elbo
    from .inference.objectives import FreeBits as FreeBits
    from .inference.objectives import MeanField as MeanField
    from .inference.objectives import RowObjective as RowObjective
    from .inference.objectives import StickingTheLanding as StickingTheLanding
    from .pictures.checks import plot_calibration as plot_calibration
    from .pictures.checks import plot_diagnosis as plot_diagnosis
    from .pictures.decoded import plot_interpolation as plot_interpolation
    from .pictures.decoded import plot_manifold as plot_manifold
    from .pictures.decoded import plot_traversals as plot_traversals
    from .pictures.factors import plot_factors as plot_factors
    from .pictures.film import TrainingFilm as TrainingFilm
    from .pictures.latents import plot_latent_map as plot_latent_map
    from .pictures.latents import plot_latents as plot_latents
    from .pictures.rows import plot_draws as plot_draws
    from .pictures.rows import plot_losses as plot_losses
    from .pictures.rows import plot_reconstructions as plot_reconstructions
    from .presets import PRESETS as PRESETS
    from .presets import Preset as Preset
    from .programs.check import check_svi as check_svi
    from .programs.found import ProgramCheck as ProgramCheck
    from .rows import binarize as binarize
    from .store import Store as Store
    from .trees.pyro_svi import from_pyro_svi as from_pyro_svi
    from .trees.vae import to_datatree as to_datatree
    from .vae import VAE as VAE
    from .workflow.checks.aggregate import prior_gap as prior_gap
    from .workflow.checks.calibration import calibrate as calibrate
    from .workflow.checks.comparison import Comparison as Comparison
    from .workflow.checks.comparison import compare as compare
    from .workflow.checks.control import control_chart as control_chart
    from .workflow.checks.disentanglement import disentanglement as disentanglement
    from .workflow.checks.gaps import amortization_gap as amortization_gap
    from .workflow.checks.predictive import predictive_check as predictive_check
    from .workflow.checks.units import active_units as active_units
    from .workflow.draws.encoding import encode as encode
    from .workflow.draws.posterior import sample_posterior as sample_posterior
    from .workflow.draws.simulation import simulate as simulate
    from .workflow.imputation.completed import to_frame as to_frame
    from .workflow.imputation.denoising import denoise as denoise
    from .workflow.imputation.impute import impute as impute
    from .workflow.refinement.refine import refine as refine
    from .workflow.verdict.diagnosis import Diagnosis as Diagnosis
    from .workflow.verdict.diagnosis import diagnose as diagnose
    from .workflow.verdict.judging import judge_rows as judge_rows
    from .workflow.weights.annealing import sandwich as sandwich
    from .workflow.weights.evidence import log_evidence as log_evidence
    from .workflow.weights.pareto import pareto_khat as pareto_khat

__version__ = "0.1.0"

# Imported on first use: `import ppl_vae` and `ppl-vae --help` do not wait for torch.
_HOMES = {
    "amortized": ("AmortizedModel",),
    "anndata": ("annotate",),
    "components.chain": ("Chain",),
    "components.decoders": (
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
    ),
    "components.encoders": (
        "Encoder",
        "FlowEncoder",
        "FullRankEncoder",
        "LadderEncoder",
        "LowRankEncoder",
        "MixtureEncoder",
        "NormalEncoder",
    ),
    "components.networks": ("MLP", "ConvDecoder", "ConvEncoder", "Network"),
    "components.priors": (
        "ConditionalPrior",
        "FlowPrior",
        "LadderPrior",
        "MixturePrior",
        "Prior",
        "StandardNormal",
        "VampPrior",
    ),
    "components.registry": ("Choice",),
    "config": ("VAEConfig",),
    "data": ("Coding", "ColumnKind", "Dataset", "load_data"),
    "inference.engine.compiled": ("CompiledTraceMeanField_ELBO", "CompiledTrace_ELBO"),
    "inference.fit": ("FitResult", "fit"),
    "inference.objectives": (
        "IWAE",
        "TCVAE",
        "Beta",
        "DReG",
        "Elbo",
        "FreeBits",
        "MeanField",
        "RowObjective",
        "StickingTheLanding",
    ),
    "presets": ("PRESETS", "Preset"),
    "programs.check": ("check_svi",),
    "programs.found": ("ProgramCheck",),
    "rows": ("binarize",),
    "store": ("Store",),
    "vae": ("VAE",),
    "workflow.checks.aggregate": ("prior_gap",),
    "workflow.weights.annealing": ("sandwich",),
    "workflow.checks.calibration": ("calibrate",),
    "workflow.imputation.completed": ("to_frame",),
    "pictures.checks": ("plot_calibration", "plot_diagnosis"),
    "trees.vae": ("to_datatree",),
    "workflow.checks.comparison": ("Comparison", "compare"),
    "workflow.checks.control": ("control_chart",),
    "workflow.imputation.denoising": ("denoise",),
    "workflow.verdict.diagnosis": ("Diagnosis", "diagnose"),
    "workflow.checks.disentanglement": ("disentanglement",),
    "workflow.draws.encoding": ("encode",),
    "workflow.weights.evidence": ("log_evidence",),
    "pictures.film": ("TrainingFilm",),
    "pictures.decoded": ("plot_interpolation", "plot_manifold", "plot_traversals"),
    "pictures.factors": ("plot_factors",),
    "pictures.latents": ("plot_latent_map", "plot_latents"),
    "pictures.rows": ("plot_draws", "plot_losses", "plot_reconstructions"),
    "workflow.imputation.impute": ("impute",),
    "workflow.draws.posterior": ("sample_posterior",),
    "workflow.verdict.judging": ("judge_rows",),
    "workflow.checks.predictive": ("predictive_check",),
    "trees.pyro_svi": ("from_pyro_svi",),
    "workflow.refinement.refine": ("refine",),
    "workflow.draws.simulation": ("simulate",),
    "workflow.checks.gaps": ("amortization_gap",),
    "workflow.checks.units": ("active_units",),
    "workflow.weights.pareto": ("pareto_khat",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ppl_vae' has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]

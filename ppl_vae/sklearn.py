"""VAEs as scikit-learn's estimators: impute a table, or turn its rows into latents."""

from __future__ import annotations

__all__ = ["VAEImputer", "VAETransformer"]

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    OneToOneFeatureMixin,
    TransformerMixin,
)
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from .config import VAEConfig
from .inference.fit import fit
from .sizes import passes_for
from .sources import as_tensor
from .vae import VAE
from .workflow.draws.posterior import evaluating, posterior_means
from .workflow.imputation.impute import impute
from .workflow.weights.evidence import log_evidence

if TYPE_CHECKING:
    import xarray as xr


class _VAEEstimator(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """What is alike: the parameters, how a VAE is fitted, and what is read."""

    def __init__(
        self,
        latent_dim: int | None = None,
        *,
        likelihood: str | None = "normal",
        network: str | None = None,
        prior: str = "standard_normal",
        guide: str = "normal",
        objective: str = "iwae:num_particles=10",
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float = 2e-3,
        num_samples: int = 1000,
        random_state: Any = None,
    ) -> None:
        self.latent_dim = latent_dim
        self.likelihood = likelihood
        self.network = network
        self.prior = prior
        self.guide = guide
        self.objective = objective
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.num_samples = num_samples
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Any:  # noqa: N803
        """Fit a VAE to the rows of ``X``, shape ``(row, feature)``, with NaN for missing entries.

        Raises
        ------
        ValueError
            If a column holds no number or never varies, no row holds any, or a parameter is not
            accepted.
        """
        rows = self._rows(X, reset=True, ensure_min_samples=2)
        seen = rows[~rows.isnan().all(1)]
        if len(seen) < 2:
            raise ValueError(
                f"X has {len(seen)} rows with an entry that is not missing; pass at least 2"
            )
        self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))
        given = {
            "latent_dim": self.latent_dim,
            "likelihood": self.likelihood,
            "network": self.network,
        }
        choices = {name: value for name, value in given.items() if value is not None}
        names = getattr(self, "feature_names_in_", None)
        config = VAEConfig.for_data(
            seen,
            feature_names=None if names is None else list(names),
            prior=self.prior,
            guide=self.guide,
            missing=True,
            **choices,
        )
        self.vae_ = VAE.from_config(config, seed=self.seed_)
        size = self.batch_size or min(len(seen), 128, max(16, len(seen) // 10))
        self.result_ = fit(
            self.vae_,
            seen,
            epochs=self.epochs or passes_for(len(seen), size),
            batch_size=size,
            objective=self.objective,
            learning_rate=self.learning_rate,
            seed=self.seed_,
            progress=False,
        )
        return self

    def _rows(self, given: Any, *, reset: bool = False, ensure_min_samples: int = 1) -> Tensor:
        array = validate_data(
            self,
            given,
            dtype=[np.float64, np.float32],
            ensure_all_finite="allow-nan",
            ensure_min_samples=ensure_min_samples,
            reset=reset,
        )
        return as_tensor(array).to(torch.get_default_dtype())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


class VAEImputer(OneToOneFeatureMixin, _VAEEstimator):  # type: ignore[misc]
    """Fill missing entries with their means given the others of the row, by a VAE.

    Parameters
    ----------
    latent_dim
        The number of latents; by default as many as the columns could have factors, from 2 to 50.
    likelihood
        Of an entry, with options: ``"normal"``, ``"poisson"``, ``"self_masking:hides=high"``, ...;
        None takes the narrowest that fits the data.
    network, prior, guide
        Parts with their options, as :class:`~ppl_vae.VAEConfig` takes them.
    objective, batch_size, learning_rate
        As in :func:`~ppl_vae.fit`; by default the MIWAE bound, and a tenth of the rows but from 16
        to 128.
    epochs
        By default about 2,000 steps, but from 20 to 200 passes.
    num_samples
        Importance draws for each row.
    random_state
        Decides all that is random.

    Attributes
    ----------
    vae_
        The fitted VAE, for all else that this package does.
    result_
        What the fit did.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(100, 3))
    >>> x[::7, 1] = np.nan
    >>> imputer = VAEImputer(epochs=2, random_state=0).fit(x)
    >>> filled = imputer.transform(x)
    >>> bool(np.isfinite(filled).all()), bool((filled == x)[1].all())
    (True, True)
    """

    def transform(self, X: Any) -> np.ndarray:  # noqa: N803
        """``X`` with each missing entry filled in, shape ``(row, feature)``."""
        check_is_fitted(self)
        rows = self._rows(X)
        given = validate_data(
            self, X, dtype=[np.float64, np.float32], ensure_all_finite="allow-nan", reset=False
        )
        found = self._imputed(rows, num_draws=1)
        return np.where(np.isnan(given), found.x.values, given)

    def impute(self, X: Any, **options: Any) -> xr.Dataset:  # noqa: N803
        """What :func:`~ppl_vae.impute` says of ``X``: draws, intervals, and k-hat by row."""
        check_is_fitted(self)
        return self._imputed(self._rows(X), **options)

    def _imputed(self, rows: Tensor, **options: Any) -> xr.Dataset:
        settings = {"num_samples": self.num_samples, "seed": self.seed_, "progress": False}
        return impute(self.vae_, rows, **{**settings, **options})


class VAETransformer(ClassNamePrefixFeaturesOutMixin, _VAEEstimator):  # type: ignore[misc]
    """Turn rows into latents and back, and say how likely they are, by a VAE.

    Parameters
    ----------
    latent_dim, likelihood, network, prior, guide
        As in :class:`VAEImputer`.
    objective, epochs, batch_size, learning_rate, num_samples, random_state
        As there, too.

    Attributes
    ----------
    vae_, result_
        As in :class:`VAEImputer`.
    pareto_k_
        k-hat of each row that ``score_samples`` was last called for: above 0.7 its log p(x) is
        rather a lower bound.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(100, 3))
    >>> transformer = VAETransformer(latent_dim=2, epochs=2, random_state=0).fit(x)
    >>> z = transformer.transform(x)
    >>> z.shape, transformer.inverse_transform(z).shape
    ((100, 2), (100, 3))
    >>> x[0] += 50.0
    >>> int(transformer.score_samples(x).argmin()), transformer.pareto_k_.shape
    (0, (100,))
    """

    def transform(self, X: Any) -> np.ndarray:  # noqa: N803
        """The mean of q(z|x) of each row, shape ``(row, latent)``."""
        check_is_fitted(self)
        return posterior_means(self.vae_, self._rows(X), seed=self.seed_).astype(np.float64)

    def inverse_transform(self, X: Any) -> np.ndarray:  # noqa: N803
        """The mean of p(x|z), or its mode, for latents ``(row, latent)``: ``(row, feature)``.

        Raises
        ------
        ValueError
            If ``X`` has another number of latents.
        """
        check_is_fitted(self)
        z = torch.as_tensor(np.asarray(X)).to(self.vae_.like)
        if z.dim() != 2 or z.shape[1] != self._n_features_out:
            raise ValueError(
                f"X has shape {tuple(z.shape)}; pass latents, (row, {self._n_features_out})"
            )
        with evaluating(self.vae_, self.seed_):
            return self.vae_.typical(z).double().cpu().numpy()

    def score_samples(self, X: Any) -> np.ndarray:  # noqa: N803
        """log p(x) of each row, nats, shape ``(row,)``: the lowest are outliers."""
        check_is_fitted(self)
        found = log_evidence(
            self.vae_,
            self._rows(X),
            num_samples=self.num_samples,
            seed=self.seed_,
            progress=False,
        )
        self.pareto_k_ = found.pareto_k.values
        return found.log_evidence.values

    def score(self, X: Any, y: Any = None) -> float:  # noqa: N803
        """The mean of log p(x) over rows, nats per row, such as for a grid search."""
        return float(self.score_samples(X).mean())

    @property
    def _n_features_out(self) -> int:
        return self.vae_.latent_dim

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # log p(x) is estimated by draws, which depend on the rows that come together.
        tags.non_deterministic = True
        return tags

"""Flows invert, have the Jacobians of autograd, and record without a fall-back."""

import pyro.distributions as dist
import pytest
import torch

from ppl_vae.components.flows import Transforms

KINDS = ["coupling", "autoregressive", "inverse_autoregressive"]


def flow(kind, univariate, latent_dim=3, context=2):
    torch.manual_seed(0)
    made = Transforms(latent_dim, context=context, kind=kind, univariate=univariate, transforms=2)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    made = made.double()
    features = torch.randn(4, context, dtype=torch.float64) if context else None
    base = dist.Normal(torch.zeros(latent_dim).double(), 1.0).to_event(1)
    return made(base.expand((4,)), features)


@pytest.mark.parametrize("univariate", ["affine", "spline"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("latent_dim", "context"), [(3, 2), (1, 2), (1, 0), (4, 0)])
def test_density_is_that_of_change_of_variables(kind, univariate, latent_dim, context):
    q = flow(kind, univariate, latent_dim, context)
    u = q.base.sample()
    z = q.transform.inv(u)
    torch.testing.assert_close(q.transform(z), u, rtol=1e-6, atol=1e-6)
    jacobian = torch.autograd.functional.jacobian(lambda u: q.transform.inv(u).sum(0), u)
    jacobian = jacobian.movedim(0, -2)  # (row, latent of z, latent of u)
    expected = q.base.log_prob(u) - torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(q.log_prob(z), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_density_of_its_own_draws_is_known(kind):
    """And is the one that the inverse gives."""
    q = flow(kind, "affine")
    z = q.rsample((5,))
    torch.testing.assert_close(q.log_prob(z), q.log_prob(z.clone()))


@pytest.mark.parametrize("kind", KINDS)
def test_it_starts_as_its_base(kind):
    base = dist.Normal(torch.zeros(3), 1.0).to_event(1)
    q = Transforms(3, kind=kind)(base)
    z = torch.randn(5, 3)
    torch.testing.assert_close(q.log_prob(z), base.log_prob(z))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "planar"}, "kind is 'planar'; accepted are 'coupling', 'autoregressive'"),
        ({"univariate": "cubic"}, "univariate is 'cubic'; accepted are 'affine', 'spline'"),
        ({"transforms": 0}, "transforms is 0; pass a whole number of at least 1"),
        ({"bins": 1.5}, "bins is 1.5; pass a whole number of at least 2"),
        ({"hidden": (0,)}, "hidden is"),
        ({"activation": "sine"}, "activation is 'sine'"),
    ],
)
def test_options_that_are_not_accepted(options, message):
    with pytest.raises(ValueError, match=message):
        Transforms(2, **options)

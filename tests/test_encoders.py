"""Question 3: what mu and sigma are, and question 1: two heads or one."""

import copy

import pytest
import torch
from torch import nn

from ppl_vae import MLP, VAE, NormalEncoder, VAEConfig, fit


def test_mu_and_sigma_are_outputs_that_differ_by_row_and_no_parameters(digits):
    vae = VAE.from_config(VAEConfig.for_data(digits, hidden=(64,), latent_dim=2))
    fit(vae, digits[:1000], epochs=5, learning_rate=2e-3, progress=False)
    q = vae.encoder(digits[:10])
    mu, sigma = q.base_dist.loc, q.base_dist.scale
    assert mu.shape == sigma.shape == (10, 2)
    for outputs in (mu, sigma):
        differences = (outputs[:, None] - outputs[None]).abs().amax(-1)
        assert (differences + torch.eye(10) > 1e-4).all()
        assert not outputs.is_leaf  # computed, not learned
    shapes = [p.shape for p in vae.parameters()]
    assert not any(len(digits) in shape or 10 in shape for shape in shapes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_joint_head_with_the_same_weights_gives_the_same_numbers(dtype):
    network = MLP((64,), hidden=(32,))
    separate = NormalEncoder(network, 5, heads="separate").to(dtype)
    joint = NormalEncoder(network, 5, heads="joint").to(dtype)
    nn.init.normal_(separate.scale_head.weight)
    with torch.no_grad():
        joint.head.weight.copy_(torch.cat([separate.loc_head.weight, separate.scale_head.weight]))
        joint.head.bias.copy_(torch.cat([separate.loc_head.bias, separate.scale_head.bias]))
    x = torch.randn(100, 64, dtype=dtype)
    one, two = joint(x).base_dist, separate(x).base_dist
    # To the last digits: a matrix product of twice the width may be summed in another order.
    digits = {"rtol": 0.0, "atol": 4 * torch.finfo(dtype).eps}
    torch.testing.assert_close(one.loc, two.loc, **digits)
    torch.testing.assert_close(one.scale.log(), two.scale.log(), **digits)


@pytest.mark.parametrize("scale", ["log_variance", "log_scale", "softplus"])
@pytest.mark.parametrize("heads", ["separate", "joint"])
def test_scale_starts_at_the_priors(scale, heads):
    q = NormalEncoder(MLP((64,), hidden=(32,)), 5, scale, heads)(torch.randn(7, 64))
    torch.testing.assert_close(q.base_dist.scale, torch.ones(7, 5))


def test_log_variance_is_the_formula_of_the_mission():
    encoder = NormalEncoder(MLP((64,), hidden=(32,)), 5)
    nn.init.normal_(encoder.scale_head.weight)
    x = torch.randn(7, 64)
    logvar = encoder.scale_head(encoder.network(x))
    torch.testing.assert_close(encoder(x).base_dist.scale, torch.exp(0.5 * logvar))


def test_extreme_rows_keep_the_scale_finite():
    encoder = NormalEncoder(MLP((3,), hidden=(8,)), 2)
    nn.init.normal_(encoder.scale_head.weight)
    x = torch.tensor([[1e38, -1e38, 1e38], [3e38, 3e38, 3e38], [0.0, 0.0, 0.0]])
    raw = encoder.scale_head(encoder.network(x))
    scale = encoder.scale(raw)
    assert scale.isfinite().all()
    assert (scale > 0).all()


def test_draws_are_reparameterized(digits):
    encoder = NormalEncoder(MLP((8, 8), hidden=(32,)), 5)
    x = digits[:300]
    q = encoder(x)
    torch.manual_seed(0)
    one = q.rsample()
    torch.manual_seed(0)
    torch.testing.assert_close(encoder.draw(x), one)
    torch.manual_seed(0)
    near = encoder.draw(x, epsilon_std=0.1)
    torch.testing.assert_close(near - q.mean, 0.1 * (one - q.mean), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(encoder.draw(x, epsilon_std=0.0), q.mean)
    assert torch.autograd.grad(near.sum(), encoder.loc_head.weight)[0].abs().sum() > 0


@pytest.mark.parametrize("epsilon_std", [-1.0, float("nan"), float("inf")])
def test_epsilon_std_is_a_standard_deviation(epsilon_std):
    with pytest.raises(ValueError, match=f"epsilon_std is {epsilon_std}; pass a number"):
        NormalEncoder(MLP((3,), (4,)), 2).draw(torch.zeros(1, 3), epsilon_std=epsilon_std)


def test_any_torch_network_will_do():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU())
    assert NormalEncoder(network, 2)(torch.zeros(7, 8, 8)).event_shape == (2,)


def test_network_without_a_width_is_refused():
    with pytest.raises(ValueError, match=r"set network\.out_features"):
        NormalEncoder(nn.ReLU(), 2)


def test_unknown_heads():
    with pytest.raises(ValueError, match="heads is 'two'; accepted are 'separate', 'joint'"):
        NormalEncoder(nn.Linear(3, 3), 2, heads="two")


def test_missing_entries_are_filled_and_the_mask_is_seen():
    encoder = NormalEncoder(MLP((2, 3), hidden=(8,)), 2, center=5.0, missing=True)
    filled = torch.tensor([[1.0, 5.0, 2.0]])
    holed = torch.tensor([[1.0, torch.nan, 2.0]])
    assert not torch.equal(encoder(filled).mean, encoder(holed).mean)
    seen = []
    encoder.network.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    encoder(holed)
    assert seen[0].tolist() == [[[-4.0, 0.0, -3.0], [1.0, 0.0, 1.0]]]


def test_standardization_of_another_is_not_left_out():
    """One that standardizes loads it; one that does not would be another function, and refuses."""
    x = torch.randn(7, 6)
    network = nn.Linear(6, 4)
    given = NormalEncoder(network, 2, center=[1.0] * 6, spread=3.0)
    loaded = NormalEncoder(network, 2, center=[2.0] * 6, spread=1.0)
    loaded.load_state_dict(given.state_dict())
    assert torch.equal(loaded(x).mean, given(x).mean)
    assert torch.equal(copy.deepcopy(loaded)(x).mean, given(x).mean)
    with pytest.raises(RuntimeError, match=r"inputs\.center"):
        NormalEncoder(network, 2).load_state_dict(given.state_dict())


def test_weights_of_version_0_1():
    """There the encoder itself held the standardization, also where it changes nothing."""
    network = nn.Linear(6, 4)
    for center in (0.0, 2.0):
        encoder = NormalEncoder(network, 2, center=center)
        old = {k.replace("inputs.", ""): v for k, v in encoder.state_dict().items()}
        old |= {"center": torch.tensor(center), "spread": torch.tensor(1.0)}
        encoder.load_state_dict(old)
        assert encoder.inputs.standardizes == bool(center)
    with pytest.raises(RuntimeError, match=r"inputs\.center"):
        NormalEncoder(network, 2).load_state_dict(old)

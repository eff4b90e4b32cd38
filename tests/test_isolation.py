"""Leave the world as it was found."""

from concurrent.futures import ThreadPoolExecutor

import pyro
import pytest
import torch
from pyro.infer import trace_elbo

from ppl_vae import VAE, VAEConfig, fit, sample_posterior
from ppl_vae.isolation import isolated, seeded


def test_everything_comes_back_also_after_an_error():
    pyro.param("outside", torch.zeros(()))
    state = torch.get_rng_state()

    def fail_inside():
        with isolated(0):
            pyro.param("inside", torch.zeros(()))
            torch.randn(3)
            assert not pyro.infer.util.is_validation_enabled()
            raise KeyError("inside")

    with pytest.raises(KeyError):
        fail_inside()
    assert torch.equal(torch.get_rng_state(), state)
    assert list(pyro.get_param_store().keys()) == ["outside"]
    assert pyro.infer.util.is_validation_enabled()


@pytest.mark.parametrize("seed", [-1, 0.5, None, True, "1"])
def test_bad_seed(seed):
    with pytest.raises(ValueError, match="pass a whole number of at least 0"), seeded(seed):
        pass


def test_threads_take_turns():
    """Fits and draws in several threads are those of each alone, and leave the globals be."""
    x = (torch.rand(64, 4, generator=torch.Generator().manual_seed(0)) < 0.5).float()

    def work(seed):
        vae = VAE.from_config(VAEConfig(event_shape=(4,), latent_dim=2, hidden=(8,)), seed=seed)
        result = fit(vae, x, epochs=3, batch_size=8, engine="graph", seed=seed, progress=False)
        draws = sample_posterior(vae, x, num_samples=5, seed=seed)
        return [*result.history.train_loss.values, *draws.z.values.flatten()]

    alone = [work(seed) for seed in range(3)]
    torch.manual_seed(3)
    before = torch.get_rng_state(), trace_elbo.torch_item
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(work, range(3)))
    assert together == alone
    assert torch.equal(torch.get_rng_state(), before[0])
    assert trace_elbo.torch_item is before[1]

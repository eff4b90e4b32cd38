"""Leave the world as it was found."""

import pyro
import pytest
import torch

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

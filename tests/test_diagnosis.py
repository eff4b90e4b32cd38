"""The verdict, on encoders whose faults are known."""

import numpy as np
import pytest
import torch
from oracle import LinearGaussian

from ppl_vae import VAE
from ppl_vae.workflow.diagnosis import VERDICTS, diagnose

QUICK = {"num_samples": 300, "gap_rows": 10, "refined_rows": 20, "progress": False}


def fault(vae: VAE, kind: str) -> VAE:
    """Break the encoder of an oracle's VAE in one way."""
    encoder = vae.encoder
    with torch.no_grad():
        if kind in ("too narrow", "too wide"):
            encoder.scale_head.bias += 2 * np.log({"too narrow": 0.5, "too wide": 2.0}[kind])
        elif kind == "shifted":
            encoder.loc_head.bias += (0.5 * encoder.scale_head.bias).exp()
        elif kind == "at the prior":
            encoder.loc_head.weight[1] = 0.0
            encoder.loc_head.bias[1] = 0.0
            encoder.scale_head.bias[1] = 0.0
    return vae


@pytest.fixture(params=[(3, 8), (16, 64)], ids=["3 latents", "16 latents"])
def exact(request) -> LinearGaussian:
    return LinearGaussian.random(*request.param)


def names(oracle: LinearGaussian) -> str:
    listed = [f"z[{i}]" for i in range(oracle.latent_dim)]
    return ", ".join(listed[:6]) + (f" and {len(listed) - 6} more" if len(listed) > 6 else "")


def test_exact_encoder_is_believed(exact):
    """Calibration's smallest p-value falls below its level by chance in 1 of 100 seeds."""
    oracle = exact
    found = diagnose(oracle.vae(), oracle.rows(60), **QUICK)
    assert (found.rows.verdict == "as it is").all()
    assert found.faults == []
    assert found.calibration.p_value.min() > 0.01
    assert found.latents.active.all()
    for gap in ("approximation", "amortization"):
        assert abs(found.gaps[gap]).max() < 0.01
    assert "nothing wrong was found" in found.summary()
    assert f"{oracle.latent_dim} of {oracle.latent_dim} are used" in found.summary()
    evidence = oracle.log_evidence(oracle.rows(60)).mean()
    assert f"log p(x) is {evidence:.2f} +-" in found.summary()


@pytest.mark.parametrize("kind", ["too narrow", "too wide", "shifted"])
def test_the_fault_is_named(exact, kind):
    found = diagnose(fault(exact.vae(), kind), exact.rows(60), **QUICK)
    assert found.faults == [f"q(z|x) is {kind} in {names(exact)}"]
    assert found.calibration.p_value.min() < 0.01
    assert found.gaps.amortization.mean() > 0.1


def test_a_latent_left_at_the_prior_is_named(exact):
    found = diagnose(fault(exact.vae(), "at the prior"), exact.rows(60), **QUICK)
    assert found.calibration.p_value.min() < 0.01
    assert found.faults == ["the encoder leaves at the prior what the decoder uses: z[1]"]
    assert not found.latents.active.sel(latent=1)
    assert found.latents.used.sel(latent=1) > 1


@pytest.mark.parametrize("size", [(3, 8), (16, 64)])
def test_ignored_dependence_is_named(size):
    """Right margins, no correlation: of the latents by themselves nothing is wrong."""
    oracle = LinearGaussian.random(*size, correlation=0.5)
    found = diagnose(oracle.vae(), oracle.rows(60), **QUICK)
    assert found.calibration.p_value.min() < 0.01
    assert found.faults == [
        "each latent is right by itself but not all together: q(z|x) ignores how they depend on "
        "each other"
    ]
    assert found.gaps.approximation.mean() > 0.05


def test_refinement_saves_rows_of_a_narrow_encoder(oracle):
    found = diagnose(fault(oracle.vae(), "too narrow"), oracle.rows(60), **QUICK)
    verdict = found.rows.verdict.values
    assert set(verdict) <= set(VERDICTS)
    tried = np.isfinite(found.rows.pareto_k_refined.values)
    assert tried.sum() == min(20, (found.rows.pareto_k > 0.7).sum())
    assert (verdict[tried] == "refined").all()


def test_a_sample_of_refined_rows_is_scaled_to_all(oracle):
    """A tenth of the rows are too narrow for any weights; 5 of these are refined, all mended."""
    vae, x = fault(oracle.vae(), "too narrow"), oracle.rows(60)
    found = diagnose(vae, x, **{**QUICK, "refined_rows": 5})
    unreliable = int((found.rows.pareto_k > 0.7).sum())
    assert unreliable > 5
    assert (found.rows.verdict == "not tried").sum() == unreliable - 5
    text = found.summary()
    assert f"refined     ~{unreliable} " in text
    assert f"Refined: 5, spread over the {unreliable} rows with k-hat above 0.7" in text
    alone = float((found.rows.pareto_k_redrawn <= 0.7).sum()) / 5
    assert f"100% fell below it, where fresh draws alone would have brought {alone:.0%}." in text
    assert VERDICTS["not tried"] not in text
    untried = diagnose(vae, x, **{**QUICK, "refined_rows": 0}).summary()
    assert VERDICTS["not tried"] in untried


def test_datatree_and_plot(oracle, tmp_path):
    found = diagnose(oracle.vae(), oracle.rows(20), num_simulations=50, **QUICK)
    tree = found.to_datatree()
    assert set(tree.children) == {"rows", "latents", "calibration", "gaps"}
    assert tree.attrs["summary"] == found.summary()
    found.plot().savefig(tmp_path / "diagnosis.png")

"""The verdict, on encoders whose faults are known."""

import numpy as np
import pytest
import torch
from oracle import LinearGaussian

from ppl_vae import VAE
from ppl_vae.workflow.verdict.diagnosis import diagnose
from ppl_vae.workflow.verdict.verdicts import VERDICTS

QUICK = {
    "num_samples": 300,
    "gap_rows": 10,
    "refined_rows": 20,
    "annealed_rows": 10,
    "progress": False,
}


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
    assert "Annealing from the prior contradicts none of 10 rows believed." in found.summary()
    evidence = oracle.log_evidence(oracle.rows(60)).mean()
    assert f"log p(x) is {evidence:.2f} +-" in found.summary()


@pytest.mark.parametrize("training", [False, True])
def test_one_row_alone(oracle, training):
    """Units, a variance over rows, are those of other rows; nothing is printed as NaN."""
    others = {"training": oracle.rows(40)} if training else {}
    found = diagnose(oracle.vae(), oracle.rows(1), **QUICK, **others)
    assert found.rows.verdict.values.tolist() == ["as it is"]
    assert found.latents.attrs["num_rows"] == (40 if training else 200)
    assert found.latents.active.all()
    assert "nan" not in found.summary()
    found.plot()


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
    verdict, tried = found.rows.verdict.values, found.rows.tried.values
    assert set(verdict) <= set(VERDICTS)
    assert tried.sum() == 20
    assert (verdict[tried] == "refined").all()
    assert found.rows.kl_refined.values[tried].max() < 0.01
    assert found.rows.kl.values[tried].mean() > 0.5


def test_a_sample_of_refined_rows_is_scaled_to_all(oracle):
    """5 of the rows that are too narrow for any weights are refined, all mended."""
    vae, x = fault(oracle.vae(), "too narrow"), oracle.rows(60)
    found = diagnose(vae, x, **{**QUICK, "refined_rows": 5})
    untried = int((found.rows.verdict == "not tried").sum())
    assert untried > 5
    text = found.summary()
    assert f"refined     ~{untried + 5} " in text
    assert f"Refined: 5, spread over the {untried + 5} rows that neither raw nor weighted" in text
    assert "100% can be used then" in text
    assert VERDICTS["not tried"] not in text
    untried = diagnose(vae, x, **{**QUICK, "refined_rows": 0}).summary()
    assert VERDICTS["not tried"] in untried


def test_a_fit_that_failed_is_said_in_words(oracle):
    """Below independent entries, not finite, or without a latent in use."""
    x = oracle.rows(20)
    options = {**QUICK, "num_simulations": 50}
    found = diagnose(oracle.vae(), x, baseline=-5.0, **options)
    assert "That is below -5.00, what independent entries reach" in found.summary()
    assert "independent entries" not in diagnose(oracle.vae(), x, **options).summary()
    idle = oracle.vae()
    with torch.no_grad():
        idle.decoder.network.weight.zero_()
        idle.encoder.loc_head.weight.zero_()
    assert "No latent is used" in diagnose(idle, x, **options).summary()
    lost = oracle.vae()
    with torch.no_grad():
        lost.encoder.loc_head.weight.fill_(torch.nan)
    summary = diagnose(lost, x, **options).summary()
    assert "log p(x) is not finite in any of 20 rows" in summary
    assert "Gaps: not finite in any of 10 rows" in summary


def test_datatree_and_plot(oracle, tmp_path):
    found = diagnose(oracle.vae(), oracle.rows(20), num_simulations=50, **QUICK)
    tree = found.to_datatree()
    assert set(tree.children) == {"rows", "latents", "calibration", "gaps", "prior_gap"}
    assert tree.attrs["summary"] == found.summary()
    found.plot().savefig(tmp_path / "diagnosis.png")

"""What the truths of simulated rows say of verdicts."""

import pytest
import torch
from test_verdicts import linear

from ppl_vae.workflow.verdict import simulated as module
from ppl_vae.workflow.verdict.doubt import doubts_in_words
from ppl_vae.workflow.verdict.simulated import simulated
from ppl_vae.workflow.verdict.verdicts import verdicts

UNIFORM = torch.rand(150, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
NAMES = tuple("abcde")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda u: u, ""),
        (lambda u: u.clamp(max=0.97) + 0.02, ""),
        (lambda u: u**2, "the truth of c lies below their draws too often"),
        (lambda u: u**0.5, "the truth of c lies above their draws too often"),
        (
            lambda u: 0.5 + (u - 0.5) / 2,
            "the truth of c lies in the middle of their draws too often",
        ),
        (lambda u: (u > 0.5).to(u), "the truth of c lies outside their draws too often"),
    ],
)
def test_ranks_in_words(change, said):
    share = UNIFORM.clone()
    share[:, 2] = change(share[:, 2])
    assert module._against(share, NAMES) == said
    assert module._against(share[:29], NAMES) == ""


def test_truths_of_exact_encoders_seldom_speak_against_them():
    """By chance 1 in 1,000 of 500 sets, without the tolerance: more than 4 in 2 of 10,000."""
    generator = torch.Generator().manual_seed(1)
    sets = torch.rand(500, 60, 5, dtype=torch.float64, generator=generator)
    assert sum(module._against(share, NAMES) != "" for share in sets) <= 4


@pytest.mark.parametrize(("shift", "stretch"), [(0.0, 1.0), (0.25, 1.0), (0.0, 1.25)])
def test_weighted_draws_are_asked_with_their_weights(shift, stretch):
    vae, _ = linear(3, shift, stretch, 1)
    found = simulated(vae, None, num_rows=200, tolerance=0.2, progress=False)
    assert found.believed > 150
    assert found.against == ""
    assert found.hidden == 0


def test_verdicts_that_truths_contradict_are_taken_back(monkeypatch):
    """Where the judge believes draws that are off by 1 sd, the truths of simulated rows do not."""

    def trusting(log_weight, z, **options):
        found = judge(log_weight, z, **options)
        return found | {"raw_close": torch.ones_like(found["raw_close"])}

    judge = module.judge
    monkeypatch.setattr(module, "judge", trusting)
    vae, x = linear(2, 0.6, 1.0, 6)
    options = {"tolerance": 0.2, "refined_rows": 0, "progress": False}
    blind = verdicts(vae, x, annealed_rows=0, **options)
    assert (blind.verdict == "reweighted").all()
    assert blind.truths_against == ""
    found = verdicts(vae, x, annealed_rows=2, **options)
    assert found.truths_against.endswith("lies below their draws too often")
    assert (found.verdict == "not").all()
    assert all("simulated rows that would be believed" in why for why in found.reason.values)
    assert (found.weights_usable == -1).all()
    assert f"of {found.believed_rows} simulated rows" in doubts_in_words(found)[-1]


def test_verdicts_that_truths_bear_out_say_so():
    vae, x = linear(2, 0.0, 1.0, 6)
    found = verdicts(vae, x, annealed_rows=2, refined_rows=0, progress=False)
    assert (found.verdict == "as it is").all()
    assert doubts_in_words(found)[-1] == (
        "Calibration of verdicts: of 200 simulated rows that would be believed, truths lie where "
        "draws say."
    )

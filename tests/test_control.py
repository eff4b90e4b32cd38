"""The control chart: exact while rows are exchangeable, whatever they are, and quick after."""

import numpy as np
import pytest
import xarray as xr

from ppl_vae import control_chart, log_evidence
from ppl_vae.workflow.checks.control import _uniform


def estimated(log_evidence, pareto_k, **attrs):
    """As ``log_evidence`` returns it."""
    variables = {"log_evidence": log_evidence, "pareto_k": pareto_k}
    variables["weights_usable"] = np.asarray(pareto_k) < 0.7
    return xr.Dataset(
        {name: ("row", np.asarray(values)) for name, values in variables.items()},
        attrs={"method": "importance", "num_samples": 100, **attrs},
    )


def skewed(rng, size):
    """Numbers with a heavy tail, many ties, NaN and infinities."""
    values = np.round(rng.standard_t(2, size), 1)
    values[rng.random(size) < 0.02] = np.nan
    values[rng.random(size) < 0.02] = -np.inf
    return values


def test_a_batch_is_a_false_alarm_as_often_as_stated():
    """Of 200 charts of 50 batches, 30 reference rows and k-hat tied with log p(x).

    Batches are independent, so that alarms of a quantity are binomial. Each of the three counts is
    off by 4.5 standard deviations in one of 140,000 seeds.
    """
    rng, rate, charts = np.random.default_rng(1), 0.1, []
    for seed in range(200):
        values = skewed(rng, 30 + 50 * 4)
        both = estimated(values, np.maximum(-values, 0.0))
        parts = both.isel(row=slice(30)), both.isel(row=slice(30, None))
        charts.append(control_chart(*parts, size=4, rate=rate, seed=seed))
    of = {name: np.stack([chart[name].values for chart in charts]) for name in charts[0]}
    score, limit = of["log_evidence_score"], charts[0].log_evidence_limit
    for part, alarms in (
        (1 / 4, score < -limit),
        (1 / 4, score > limit),
        (1 / 2, of["pareto_k_score"] > charts[0].pareto_k_limit),
    ):
        deviation = np.sqrt(score.size * part * rate * (1 - part * rate))
        assert abs(alarms.sum() - score.size * part * rate) < 4.5 * deviation
    assert rate / 2 < of["alarm"].mean() < rate
    before, after = score[:, :-1].ravel(), score[:, 1:].ravel()
    assert abs(np.corrcoef(before, after)[0, 1]) < 4.5 / np.sqrt(len(before))


def test_ranks_are_those_among_all_rows_before():
    before, new = np.array([1.0, 3.0, 3.0]), np.array([3.0, 0.0, 2.0, 3.0])
    chance = np.random.default_rng([5, 0]).random(4)
    expected = [
        (1 + chance[0] * 3) / 4,
        chance[1] / 5,
        (2 + chance[2]) / 6,
        (3 + chance[3] * 4) / 7,
    ]
    np.testing.assert_allclose(_uniform(before, new, [5, 0]), expected)


def test_pieces_make_no_difference(monkeypatch):
    rng = np.random.default_rng(0)
    before, new = rng.integers(0, 9, 50).astype(float), rng.integers(0, 9, 40).astype(float)
    whole = _uniform(before, new, [0])
    monkeypatch.setattr("ppl_vae.workflow.checks.control._ROWS", 7)
    np.testing.assert_array_equal(_uniform(before, new, [0]), whole)


@pytest.mark.parametrize(
    ("shift", "worse", "fault"),
    [(-1.0, 0.0, "log p(x) is lower"), (1.0, 0.0, "log p(x) is higher"), (0.0, 0.3, "k-hat is")],
)
def test_a_change_is_seen_where_it_happens(shift, worse, fault):
    """By one standard deviation after two batches of 50, which one chart in 50 calls alarms."""
    rng = np.random.default_rng(2)
    log_p, k = rng.normal(size=400), rng.normal(0.3, 0.1, size=400)
    log_p[300:] += shift
    k[300:] += worse
    whole = estimated(log_p, k)
    chart = control_chart(whole.isel(row=slice(200)), whole.isel(row=slice(200, None)), size=50)
    assert chart.alarm.values.tolist() == [False, False, True, True]
    assert all(words.startswith(fault) for words in chart.fault.values[2:])
    assert chart["first"].values.tolist() == [0, 50, 100, 150]


def test_batches_stay_as_they_are_when_more_rows_come():
    rng = np.random.default_rng(3)
    whole = estimated(rng.normal(size=300), rng.random(300))
    old = whole.isel(row=slice(100))
    few, more = (control_chart(old, whole.isel(row=slice(100, end)), size=40) for end in (190, 300))
    assert more.rows.values.tolist() == [40, 40, 40, 40, 40]
    assert few.rows.values.tolist() == [40, 40, 10]
    for name in ("log_evidence_score", "pareto_k_score"):
        np.testing.assert_array_equal(few[name][:2], more[name][:2])


def test_of_a_model(oracle):
    vae, x = oracle.vae(), oracle.rows(300)
    options = {"num_samples": 50, "progress": False}
    before = log_evidence(vae, x[:150], **options)
    found = [
        control_chart(before, log_evidence(vae, scale * x[150:], seed=1, **options), size=75)
        for scale in (1.0, 1.5)
    ]
    assert not found[0].alarm.any()  # one seed in 50 calls one
    assert found[1].fault.values.tolist() == ["log p(x) is lower"] * 2


def test_what_cannot_be_compared_is_refused():
    some = estimated([0.0, 1.0], [0.1, 0.2])
    for given, message in (
        ((some, estimated([0.0], [0.1], num_samples=30)), "num_samples is 100 of reference and 30"),
        ((some.isel(row=[]), some), "reference has no rows"),
        ((some, some.drop_vars("pareto_k")), "new has no pareto_k"),
        ((estimated([0.0], [np.nan]), some), "reference has no k-hat"),
    ):
        with pytest.raises(ValueError, match=message):
            control_chart(*given)
    for options, message in (({"size": 0}, "size is 0"), ({"rate": 1.0}, "rate is 1.0")):
        with pytest.raises(ValueError, match=message):
            control_chart(some, some, **options)

"""Tests of ppl_vae.rows: which rows are refused, and bytes as numbers or bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ppl_vae.rows import binarize, check_rows, to_float

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "x",
    [
        torch.rand(3, 2),
        torch.rand(3, 4, 4, dtype=torch.float64),
        torch.tensor([[0, 255]], dtype=torch.uint8),
        torch.zeros(2, 2, dtype=torch.float16),
        torch.tensor([[NAN, 1.0], [2.0, NAN]]),
        torch.tensor([[[NAN, NAN], [1.0, NAN]]]),
    ],
    ids=["floats", "images", "bytes", "half", "missing", "missing pixels"],
)
def test_rows_are_accepted(x: Tensor) -> None:
    check_rows(x)


@pytest.mark.parametrize("x", [np.ones((3, 2)), [[1.0]], None])
def test_only_tensors_are_rows(x: Any) -> None:
    with pytest.raises(TypeError, match=r"x is a \w+; pass a torch.Tensor, .*torch.as_tensor\(x\)"):
        check_rows(x)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.ones(3, 2, dtype=torch.int64), r"x has dtype torch.int64; .*: pass x.float\(\)"),
        (torch.ones(3, 2, dtype=torch.bool), "x has dtype torch.bool; accepted are floating"),
        (torch.ones(3, 2, dtype=torch.complex64), "x has dtype torch.complex64"),
        (torch.tensor(1.0), r"x has shape \(\); it needs at least one row"),
        (torch.ones(3), r"x has shape \(3,\); it needs at least one row of at least one entry"),
        (torch.ones(0, 3), r"x has shape \(0, 3\)"),
        (torch.ones(3, 0), r"x has shape \(3, 0\)"),
        (torch.empty(0, 3, dtype=torch.uint8), r"x has shape \(0, 3\)"),
        (torch.ones(3, 2, dtype=torch.uint8), "x is uint8, .*but none is above 1; pass x.float"),
        (torch.tensor([[0.0, NAN], [1.0, -INF]]), "infinite values, the first in row 1; mark"),
        (torch.tensor([[NAN, NAN], [1.0, INF]]), "infinite values, the first in row 1; mark"),
        (
            torch.tensor([[0.0, NAN], [NAN, NAN], [NAN, NAN]]),
            r"x has no observed entry in 2 rows, such as \[1, 2\]; drop these rows",
        ),
        (torch.full((30, 2, 2), NAN), r"in 30 rows, such as \[0, .*, 9\]; drop"),
    ],
)
def test_unusable_rows_are_explained(x: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_rows(x)


@pytest.mark.parametrize("x", [torch.ones(3), torch.ones(3, 2).int(), torch.full((1, 1), NAN)])
def test_refused_rows_are_called_by_name(x: Tensor) -> None:
    with pytest.raises(ValueError, match=r"^validation has"):
        check_rows(x, "validation")


def test_to_float_scales_bytes() -> None:
    x = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_float(x), torch.arange(256) / 255)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_to_float_takes_a_dtype(dtype: torch.dtype) -> None:
    x = to_float(torch.ones(2, dtype=dtype), torch.float64)
    assert x.dtype == torch.float64


def test_to_float_of_bytes_has_the_default_dtype() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        assert to_float(torch.ones(2, dtype=torch.uint8)).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_to_float_leaves_floats_as_they_are(dtype: torch.dtype) -> None:
    x = torch.full((3,), 2.0, dtype=dtype)
    assert to_float(x) is x


def test_to_float_leaves_its_input() -> None:
    x = torch.tensor([0, 255], dtype=torch.uint8)
    to_float(x)
    assert x.tolist() == [0, 255]


PIXELS = torch.arange(256, dtype=torch.uint8).repeat(2000, 1)
BYTES_AND_FLOATS = pytest.mark.parametrize("x", [PIXELS, PIXELS / 255], ids=["bytes", "floats"])


@BYTES_AND_FLOATS
@pytest.mark.parametrize("method", ["static", "dynamic"])
def test_drawn_pixels_have_the_right_probability(x: Tensor, method: Any) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = binarize(x, method)
    p = to_float(PIXELS[0])
    # 4 cases x 254 levels, exact binomial tails: without fixed seeds, 1 false alarm in 9800 runs.
    assert ((drawn.mean(0) - p).abs() <= 5.5 * (p * (1 - p) / len(x)).sqrt()).all()


@BYTES_AND_FLOATS
@pytest.mark.parametrize("method", ["static", "dynamic", "threshold"])
def test_binarized_values_are_zero_or_one(x: Tensor, method: Any) -> None:
    with torch.random.fork_rng():
        drawn = binarize(x, method)
    assert drawn.dtype == torch.float32
    assert drawn.unique().tolist() == [0, 1]


@BYTES_AND_FLOATS
def test_threshold_is_at_one_half(x: Tensor) -> None:
    assert torch.equal(binarize(x, "threshold"), (PIXELS > 127).float())


@BYTES_AND_FLOATS
def test_none_is_to_float(x: Tensor) -> None:
    assert torch.equal(binarize(x, "none"), to_float(x))


def test_static_repeats_for_the_same_seed() -> None:
    assert torch.equal(binarize(PIXELS, "static", seed=3), binarize(PIXELS, "static", seed=3))


def test_static_differs_between_seeds() -> None:
    assert not torch.equal(binarize(PIXELS, "static"), binarize(PIXELS, "static", seed=3))


def test_static_is_the_same_for_bytes_and_floats() -> None:
    assert torch.equal(binarize(PIXELS, "static"), binarize(PIXELS / 255, "static", seed=0))


def test_static_leaves_the_global_random_state_alone() -> None:
    state = torch.get_rng_state()
    binarize(PIXELS, "static", seed=1)
    assert torch.equal(torch.get_rng_state(), state)


@BYTES_AND_FLOATS
def test_dynamic_draws_afresh(x: Tensor) -> None:
    with torch.random.fork_rng():
        assert not torch.equal(binarize(x, "dynamic"), binarize(x, "dynamic"))


@BYTES_AND_FLOATS
def test_dynamic_follows_the_global_seed(x: Tensor) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = binarize(x, "dynamic")
        torch.manual_seed(1)
        assert torch.equal(first, binarize(x, "dynamic"))


@pytest.mark.parametrize("method", ["none", "static", "dynamic", "threshold"])
def test_missing_pixels_stay_missing(method: Any) -> None:
    with torch.random.fork_rng():
        drawn = binarize(torch.tensor([0.0, float("nan"), 1.0]), method)
    assert drawn.isnan().tolist() == [False, True, False]
    assert drawn[[0, 2]].tolist() == [0, 1]


def test_nothing_but_missing_pixels() -> None:
    assert binarize(torch.full((3,), float("nan")), "static").isnan().all()


def test_no_rows_are_no_error() -> None:
    assert binarize(torch.empty(0, 4), "static").shape == (0, 4)


def test_binarized_bytes_have_the_default_dtype() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        assert binarize(PIXELS[:2], "static").dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_binarize_keeps_a_float_dtype() -> None:
    assert binarize(torch.ones(2, dtype=torch.float64), "static").dtype == torch.float64


@pytest.mark.parametrize("method", ["static", "dynamic", "threshold"])
@pytest.mark.parametrize("bad", [-0.5, 255.0])
@pytest.mark.parametrize("other", [0.5, float("nan")])
def test_values_outside_the_unit_interval(method: Any, bad: float, other: float) -> None:
    with pytest.raises(ValueError, match=r"x ranges from .*probabilities in \[0, 1\]; pass inten"):
        binarize(torch.tensor([bad, other]), method)


def test_unknown_method_lists_the_accepted() -> None:
    with pytest.raises(ValueError, match="'otsu'; accepted are none, static, dynamic, threshold"):
        binarize(PIXELS, "otsu")


def test_dynamic_takes_no_seed() -> None:
    with pytest.raises(ValueError, match="seed=0 was given to method='dynamic'"):
        binarize(PIXELS, "dynamic", seed=0)

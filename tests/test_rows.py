"""Tests of ppl_vae.rows: which rows are refused, and bytes as numbers or bits."""

from __future__ import annotations

import importlib.util
from functools import partial
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from torch import Tensor

from ppl_vae import (
    VAE,
    VAEConfig,
    load_data,
    log_evidence,
    predictive_check,
    refine,
    sample_posterior,
    to_datatree,
)
from ppl_vae.rows import Rows, binarize, check_rows, rows_within_budget, to_float
from ppl_vae.sink import MemorySink

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


LIKE = torch.zeros((), dtype=torch.float64)
BYTES = (torch.arange(60, dtype=torch.uint8) * 4).reshape(10, 3, 2)


class Store:
    """As a zarr array: no tensor, and read by slices alone."""

    def __init__(self, array: np.ndarray) -> None:
        self.shape, self.dtype, self._array = array.shape, array.dtype, array

    def __getitem__(self, rows: slice) -> np.ndarray:
        assert isinstance(rows, slice)
        return self._array[rows]


def sources(x: Tensor, folder: Any) -> dict[str, Any]:
    array = x.numpy().copy()
    mapped = np.memmap(folder / "x", array.dtype, "w+", shape=array.shape)
    mapped[:] = array
    np.save(folder / "x.npy", array)
    read_only = array.copy()
    read_only.flags.writeable = False
    return {
        "tensor": x,
        "array": array,
        "read only": read_only,
        "backwards": array[::-1].copy()[::-1],
        "other byte order": array.astype(array.dtype.newbyteorder(">")),
        "memory map": mapped,
        "npy": np.load(folder / "x.npy", mmap_mode="r"),
        "store": Store(array),
    }


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float64])
@pytest.mark.parametrize("method", ["none", "static", "threshold"])
def test_rows_are_the_same_wherever_they_lie(tmp_path: Any, dtype: Any, method: str) -> None:
    x = BYTES if dtype == torch.uint8 else to_float(BYTES, dtype)
    if dtype == torch.float64:
        x[3, 1, 1] = NAN
    expected = binarize(x, method, seed=5 if method == "static" else None).to(LIKE)
    if method == "none":
        expected = to_float(x, torch.float64)
    order = torch.tensor([7, 3, 3, 0])
    for kind, source in sources(x, tmp_path).items():
        rows = Rows(source, torch.arange(10.0)[:, None], binarize=method, seed=5)
        assert (len(rows), rows.event_shape) == (10, (3, 2)), kind
        for chosen in (slice(0, 10), slice(2, 5), order, order.numpy(), [7, 3, 3, 0]):
            batch = rows.take(chosen, LIKE)
            index = order if not isinstance(chosen, slice) else chosen
            torch.testing.assert_close(batch.x, expected[index], equal_nan=True, msg=kind)
            assert batch.covariates is not None
            assert torch.equal(batch.covariates[:, 0], torch.arange(10.0).to(LIKE)[index]), kind
        chunks = list(rows.chunks(4, LIKE))
        assert [c for c, _ in chunks] == [slice(0, 4), slice(4, 8), slice(8, 10)]
        whole = torch.cat([batch.x for _, batch in chunks])
        torch.testing.assert_close(whole, expected, equal_nan=True)


@pytest.mark.parametrize("method", ["none", "static"])
def test_shards_are_all_rows_once_and_in_order(tmp_path: Any, method: str) -> None:
    for kind, source in sources(BYTES, tmp_path).items():
        rows = Rows(source, binarize=method)
        shards = [rows.shard(rank, 4) for rank in range(4)]
        assert sorted(map(len, shards)) == [2, 2, 3, 3], kind
        parts = torch.cat([shard.take(slice(None), LIKE).x for shard in shards])
        assert torch.equal(parts, rows.take(slice(None), LIKE).x), kind
        sink = MemorySink(len(rows))
        for rank, shard in reversed(list(enumerate(shards))):
            sink.write("x", rows.span(rank, 4), shard.numbers())
        np.testing.assert_array_equal(sink.arrays()["x"], rows.numbers())
    with pytest.raises(ValueError, match="rank is 4 of 4; pass a number from 0 to 3"):
        rows.shard(4, 4)


def test_rows_of_rows_of_rows(tmp_path: Any) -> None:
    order = torch.tensor([9, 2, 5, 4])
    covariates = torch.arange(10.0)[:, None]
    for kind, source in sources(BYTES, tmp_path).items():
        rows = Rows(source, covariates)
        for chosen, index in (
            (rows.select(order).select(slice(1, 3)), [2, 5]),
            (rows.select(slice(2, 10, 2)).select([0, 3]), [2, 8]),
            (rows.select(slice(1, None)).shard(1, 3), [4, 5, 6]),
            (rows.select(np.arange(10) > 7), [8, 9]),
            (rows.select(slice(None, None, -1)).select(slice(2)), [9, 8]),
        ):
            batch = Rows(chosen).take(slice(None), LIKE)
            assert torch.equal(batch.x, to_float(BYTES, torch.float64)[index]), kind
            assert batch.covariates is not None
            assert batch.covariates.flatten().tolist() == index


def test_static_bits_of_a_selection_are_drawn_in_its_order() -> None:
    order = torch.tensor([9, 2, 5, 4])
    rows = Rows(Rows(BYTES, binarize="dynamic").select(order), binarize="static", seed=3)
    assert torch.equal(
        rows.take(slice(None), torch.zeros(())).x, binarize(BYTES[order], "static", seed=3)
    )


def test_dynamic_bits_follow_the_global_seed() -> None:
    rows = Rows(BYTES, binarize="dynamic")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        one, two = (rows.take(slice(None), LIKE).x for _ in range(2))
        torch.manual_seed(1)
        assert torch.equal(rows.take(slice(None), LIKE).x, one)
    assert not torch.equal(one, two)


def test_bytes_stay_bytes_until_a_batch() -> None:
    rows = Rows(BYTES)
    assert rows._source is BYTES
    assert rows.take(slice(0, 2), torch.zeros((), dtype=torch.float16)).x.dtype == torch.float16
    assert Rows(BYTES, binarize="static")._source.dtype == torch.bool


def test_a_batch_is_the_arguments_of_a_program() -> None:
    assert len(Rows(BYTES).take([1], LIKE).inputs) == 1
    x, covariates = Rows(BYTES, torch.ones(10, 2)).take([1], LIKE).inputs
    assert (x.shape, covariates.shape) == ((1, 3, 2), (1, 2))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Rows([[1.0]]), TypeError, "x is a list; pass rows as a torch.Tensor"),
        (
            lambda: Rows(torch.utils.data.DataLoader([1])),
            TypeError,
            "x is a list; pass rows as .* a data set of torch, or the path of a .npy, .zarr or",
        ),
        (
            lambda: Rows(pandas.DataFrame({"a": [1.0], "b": [[2.0]]})),
            ValueError,
            r"a DataFrame, has text in columns 'b': '\[2.0\]' .*; it is neither a number nor text",
        ),
        (
            lambda: Rows(pandas.DataFrame({"a": [1.0], "kind": ["red"]}, index=["one"])),
            ValueError,
            "x, a DataFrame, has text in columns 'kind': 'red' in row 0 .* leave others out",
        ),
        (lambda: Rows(BYTES, binarize="otsu"), ValueError, "'otsu'; accepted are none"),
        (
            lambda: Rows(Rows(BYTES, torch.ones(10, 1)), torch.ones(10, 1)),
            ValueError,
            "covariates were given twice",
        ),
    ],
)
def test_what_are_no_rows(make: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("method", ["none", "static", "threshold", "dynamic"])
def test_rows_are_checked_wherever_they_lie(tmp_path: Any, monkeypatch: Any, method: str) -> None:
    monkeypatch.setattr("ppl_vae.rows._CHECKED", 4)
    vae = VAE.from_config(VAEConfig(event_shape=(3, 2), latent_dim=2, hidden=(4,)))
    black = BYTES * (torch.arange(10) == 9)[:, None, None]
    for kind, source in sources(black, tmp_path).items():
        rows = Rows(source, binarize=method)
        if method == "none":
            with pytest.raises(ValueError, match="BernoulliDecoder accepts"):
                rows.check(vae)
        else:
            rows.check(vae)
        with pytest.raises(ValueError, match=r"x and covariates disagree .* 10 and 9; pass"):
            Rows(source, torch.ones(9, 1)).check(vae)
        assert kind
    if method in ("none", "threshold"):
        for source in sources(torch.ones(10, 3, 2, dtype=torch.uint8), tmp_path).values():
            with pytest.raises(ValueError, match=r"x is uint8, .*but none is above 1"):
                Rows(source, binarize=method).check(vae)
    infinite = torch.zeros(10, 3, 2)
    infinite[6, 0, 0] = INF
    with pytest.raises(ValueError, match=r"x\[4:8\] has infinite values, the first in row 2"):
        Rows(Store(infinite.numpy())).check(vae)


def test_the_budget_bounds_rows_at_a_time() -> None:
    assert (
        rows_within_budget((64,), 1000) == 4 * rows_within_budget((64,), 1000, gradients=True) + 2
    )
    assert rows_within_budget((10**6,), 10**6) == 1
    with pytest.raises(ValueError, match="chunk_rows is 0; pass at least 1, or None to choose"):
        rows_within_budget((64,), chunk_rows=0)


def test_tables_and_data_sets_are_rows() -> None:
    expected = torch.tensor([[1.0, NAN], [2.0, 0.5]]).to(LIKE)
    columns = {"a": [1, 2], "b": [None, 0.5]}
    tables = [
        pandas.DataFrame(columns),
        pandas.DataFrame(columns, index=["one", "two"]).convert_dtypes(),
        pandas.DataFrame(columns, dtype=object),
    ]
    if importlib.util.find_spec("polars"):
        tables.append(importlib.import_module("polars").DataFrame(columns))
    for table in tables:
        torch.testing.assert_close(
            Rows(table).take(slice(None), LIKE).x, expected, equal_nan=True, msg=repr(table)
        )
    data = load_data("digits")
    assert torch.equal(Rows(data).take(slice(5), LIKE).x, to_float(data.x[:5]).to(LIKE))
    counts = np.arange(6).reshape(3, 2)
    assert torch.equal(Rows(counts).take(slice(None), LIKE).x, torch.tensor(counts).to(LIKE))


CHECKS = {
    "sample_posterior": partial(sample_posterior, num_samples=40),
    "log_evidence": partial(log_evidence, num_samples=40),
    "anneal": partial(log_evidence, method="ais", num_samples=4, num_temperatures=3),
    "predictive_check": partial(predictive_check, num_samples=5),
    "refine": partial(refine, rows=[1], num_samples=40, max_steps=25),
    "to_datatree": partial(to_datatree, num_samples=5),
}


@pytest.mark.parametrize("name", CHECKS)
def test_checks_take_any_rows(tmp_path: Any, name: str) -> None:
    vae = VAE.from_config(
        VAEConfig(event_shape=(4,), latent_dim=2, hidden=(4,), likelihood="normal", covariate_dim=1)
    )
    x, covariates = torch.rand(5, 4), torch.rand(5, 1)
    made = CHECKS[name](vae, x, covariates=covariates, progress=False)
    for source in (x.numpy(), Store(x.numpy()), pandas.DataFrame(x.numpy())):
        again = CHECKS[name](vae, source, covariates=covariates.numpy(), progress=False)
        assert again.equals(made), type(source)
    assert CHECKS[name](vae, Rows(x, covariates), progress=False).equals(made)
    with pytest.raises(ValueError, match=r"x has shape \(5, 3\) but this VAE was built for"):
        CHECKS[name](vae, x.numpy()[:, :3], covariates=covariates, progress=False)

"""DataFrames that come back as they came in, with their missing cells filled."""

import datetime

import numpy as np
import pandas as pd
import pytest

from ppl_vae import VAE, VAEConfig, impute, load_data, to_frame
from ppl_vae.data.dates import dates_like

QUIET = {"progress": False}


def test_a_frame_stays_as_it_is_but_for_its_missing_cells():
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "a": generator.normal(size=50),
            "b": pd.array(generator.integers(0, 9, 50), dtype="Int64"),
            "c": generator.normal(size=50).astype(np.float32),
        },
        index=[f"row {i}" for i in range(50)],
    )
    frame.iloc[3, 0] = np.nan
    frame.iloc[5, 1] = pd.NA
    vae = VAE.from_config(VAEConfig.for_data(frame, likelihood="normal"))
    found = impute(vae, frame, num_samples=50, **QUIET)
    assert found.feature.values.tolist() == ["a", "b", "c"]
    for draw in (None, 4):
        filled = to_frame(found, frame, draw=draw)
        assert (filled.dtypes == frame.dtypes).all()
        assert filled.index.equals(frame.index)
        assert filled.notna().all(axis=None)
        known = frame.notna()
        assert (filled.where(known) == frame).where(known, True).all(axis=None)
    assert filled.iloc[3, 0] == pytest.approx(found.draws.values[4, 3, 0])
    with pytest.raises(ValueError, match="pass the DataFrame that impute"):
        to_frame(found, frame.iloc[::-1])
    with pytest.raises(ValueError, match="from 0 to 19"):
        to_frame(found, frame, draw=20)


def test_columns_of_objects_keep_their_kind():
    """Truth values with None among them are objects to pandas."""
    known = [True, False, True, None, True]
    frame = pd.DataFrame({"yes": pd.array(known, dtype=object), "a": [0.1, 2.0, -1.0, 0.3, 0.5]})
    numbers = frame.astype(float)
    vae = VAE.from_config(VAEConfig.for_data(numbers, likelihood="normal"))
    found = impute(vae, numbers, num_samples=50, **QUIET)
    filled = to_frame(found, frame)
    assert filled.yes.dtype == object
    assert isinstance(filled.yes[3], (bool, np.bool_))
    assert filled.yes[[0, 1, 2, 4]].tolist() == [True, False, True, True]


def of_all_types(size=60):
    """A column of each type that is read, and which cells of it are lost."""
    z = np.random.default_rng(0).normal(size=size)
    row = np.arange(size)
    frame = pd.DataFrame(
        {
            "text": np.where(z > 0.5, "b", np.where(z < -0.5, "a", "c")),
            "spaced": np.where(z > 0, " yes", "no"),
            "category": pd.Categorical(np.where(z > 0, "x", "y"), categories=["w", "x", "y"]),
            "grade": pd.Categorical(np.where(z > 0, 3, 1), categories=[1, 2, 3], ordered=True),
            "truth": pd.array(z > 0, dtype="boolean"),
            "bit": (z > 0).astype(float),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(row, "D"),
            "hour": pd.date_range("2024-01-01", periods=size, tz="Europe/Berlin", freq="h"),
            "month": pd.period_range("2024-01", periods=size, freq="M"),
            "span": pd.to_timedelta(row, "D"),
            "written": [f"{1 + i % 28}.{1 + i % 12}.2020" for i in row],
            "date": [datetime.date(2020, 1 + i % 12, 1 + i % 28) for i in row],
            "length": z,
        },
        index=row + 100,
    )
    for at, name in enumerate(frame.columns):
        frame.loc[[100 + at, 120 + at], name] = None
    return frame


def test_levels_and_dates_come_back_as_they_came_in():
    frame = of_all_types()
    vae = VAE.from_config(VAEConfig.for_data(frame, latent_dim=2, hidden=(8,)))
    found = impute(vae, frame, num_samples=50, num_draws=2, **QUIET)
    known = frame.notna()
    for draw in (None, 1):
        filled = to_frame(found, frame, draw=draw)
        assert (filled.dtypes == frame.dtypes).all()
        assert filled.index.equals(frame.index)
        assert filled.notna().all(axis=None)
        assert (filled.where(known) == frame).where(known, True).all(axis=None)
        for name in ("text", "spaced", "truth", "bit"):
            assert set(filled[name]) == set(frame[name].dropna())
        assert (filled.day == filled.day.dt.normalize()).all()
        assert filled.written.str.fullmatch(r"\d\d?\.\d\d?\.2020").all()
        assert {type(cell) for cell in filled.date} == {datetime.date}
    assert set(filled.grade) <= {1, 2, 3}


@pytest.mark.parametrize(
    ("cells", "day"),
    [
        (["2024-10-03"], "2024-10-04"),
        (["2024/10/03"], "2024/10/04"),
        (["3.10.2024"], "04.10.2024"),
        (["10/28/2024", "10/03/2024"], "10/04/2024"),
        (["2024-10-03 12:00"], "2024-10-04T08:00:00"),
        (["1402-01-03"], "2024-10-04"),
    ],
)
def test_dates_are_written_as_the_others_are(cells, day):
    days = (np.datetime64("2024-10-04") - np.datetime64("1970-01-01")).astype(float)
    assert list(dates_like(np.array([days + 1 / 3]), pd.Series(cells))) == [day]


def test_other_rows_are_read_by_the_levels_of_the_fit():
    """Rows without the first level: its code would be that of the second."""
    frame = of_all_types()[["text", "length"]]
    data = load_data(frame, None)
    vae = VAE.from_config(VAEConfig.for_data(data, latent_dim=2, hidden=(8,)))
    new = frame[frame.text != "a"]
    rows = load_data(new, None, column=data.columns)
    found = impute(vae, rows, num_samples=50, **QUIET)
    filled = to_frame(found, new.assign(name="row"), columns=data.columns)
    assert filled.name.eq("row").all()
    known = new.text.notna()
    assert (filled.text[known] == new.text[known]).all()
    levels = data.columns[0].levels
    codes = found.x.values[~known.to_numpy(), 0].astype(int)
    assert filled.text[~known].tolist() == [levels[code] for code in codes]
    assert to_frame(found, new).text.tolist() == filled.text.tolist()  # imputed says its levels


def test_codes_between_levels_are_refused():
    frame = of_all_types()[["text", "length"]]
    vae = VAE.from_config(VAEConfig.for_data(frame, likelihood="normal", latent_dim=2))
    found = impute(vae, frame, num_samples=50, **QUIET)
    with pytest.raises(ValueError, match="column 'text' would be filled with"):
        to_frame(found, frame)


def test_frames_of_polars_come_back():
    polars = pytest.importorskip("polars")
    pytest.importorskip("pyarrow")
    frame = polars.DataFrame(
        {
            "length": [1.5, None, 2.0, 3.0],
            "count": [1, 2, None, 4],
            "text": ["u", "v", "u", None],
            "date": [datetime.date(2020, 1, day) if day > 1 else None for day in (1, 2, 3, 4)],
        }
    )
    vae = VAE.from_config(VAEConfig.for_data(frame, latent_dim=2, hidden=(8,)))
    found = impute(vae, frame, num_samples=50, **QUIET)
    filled = to_frame(found, frame)
    assert filled.schema == frame.schema
    assert filled.null_count().sum_horizontal().item() == 0
    assert filled["count"][2] == round(found.x.values[2, 1].item())

"""Tables that come after a fit: columns by name, levels and covariates by the fit's codes."""

import numpy as np
import pandas as pd
import pytest
import torch

from ppl_vae import VAE, VAEConfig, diagnose, fit, impute, load_data, log_evidence
from ppl_vae.rows import Rows
from ppl_vae.workflow.imputation.completed import to_frame

SIZE = 80


def _frame():
    draws = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "mass": draws.normal(size=SIZE),
            "island": draws.choice(["Biscoe", "Dream", "Torgersen"], SIZE),
            "adult": draws.random(SIZE) < 0.5,
            "seen": pd.Timestamp("2020-01-01")
            + pd.to_timedelta(draws.integers(0, 100, SIZE), unit="D"),
        }
    )
    frame.loc[::9, "island"] = None
    return frame


FRAME = _frame()


@pytest.fixture(scope="module")
def vae():
    return VAE.from_config(VAEConfig.for_data(FRAME, hidden=(4,), latent_dim=2))


def seen(vae, x):
    """The rows that a model is given."""
    rows = Rows.of(x, None, vae)
    rows.check(vae)
    return rows.take(slice(None), vae.like).x.numpy()


ALIKE = {
    "permuted columns": FRAME[["seen", "adult", "mass", "island"]],
    "categories in another order": FRAME.assign(
        island=pd.Categorical(FRAME.island, ["Torgersen", "Mars", "Dream", "Biscoe"])
    ),
    "bool as numbers": FRAME.assign(adult=FRAME.adult.astype(float)),
    "bool as text": FRAME.assign(adult=FRAME.adult.map({True: "True", False: "False"})),
    "dates as text": FRAME.assign(seen=FRAME.seen.dt.strftime("%Y-%m-%d")),
    "a Dataset of its own codes": load_data(
        FRAME[["seen", "island", "adult", "mass"]],
        None,
        column={"island": "categorical:Torgersen,Dream,Biscoe"},
    ),
}


@pytest.mark.parametrize("given", ALIKE.values(), ids=ALIKE)
def test_the_same_cells_are_the_same_rows(vae, given):
    np.testing.assert_array_equal(seen(vae, given), seen(vae, FRAME))


@pytest.mark.parametrize("level", ["Biscoe", "Torgersen"])
def test_rows_that_lack_levels_have_the_codes_of_the_fit(vae, level):
    chosen = (FRAME.island == level).to_numpy()
    np.testing.assert_array_equal(seen(vae, FRAME[chosen]), seen(vae, FRAME)[chosen])
    one = FRAME[chosen][:1]
    np.testing.assert_array_equal(seen(vae, one), seen(vae, FRAME)[chosen][:1])


OTHERS = {
    "unseen level": (FRAME.assign(island="Mars"), "'Mars'.*column 'island'.*'Biscoe', 'Dream'"),
    "lost column": (FRAME.drop(columns="mass"), "has no column 'mass'"),
    "column too many": (FRAME.assign(species="Adelie"), "has 'species', which the fit had not"),
    "text for numbers": (FRAME.assign(mass="x"), "column 'mass'.*text where real takes numbers"),
    "numbers for levels": (FRAME.assign(island=1.5), "'1.5' in row 0 of column 'island'"),
    "numbers for dates": (FRAME.assign(seen=1.5), "no date, which the fit had"),
    "numbers alone": (load_data(pd.DataFrame(np.eye(4), columns=FRAME.columns), None), "names of"),
}


@pytest.mark.parametrize(("given", "said"), OTHERS.values(), ids=OTHERS)
def test_other_tables_are_refused(vae, given, said):
    for door in (impute, log_evidence, diagnose, vae.model):
        with pytest.raises(ValueError, match=said):
            door(vae, given) if door != vae.model else door(given)


def test_a_table_of_numbers_is_matched_by_name_too():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 3)), columns=list("abc"))
    vae = VAE.from_config(VAEConfig.for_data(frame, hidden=(4,), latent_dim=2))
    np.testing.assert_array_equal(seen(vae, frame[["c", "a", "b"]]), seen(vae, frame))
    np.testing.assert_array_equal(vae.model(frame[["c", "a", "b"]]), seen(vae, frame))
    with pytest.raises(ValueError, match=r"column 'a' that is categorical.*the fit had numbers"):
        seen(vae, frame.assign(a=["x", "y", "z"] * 10))
    with pytest.raises(ValueError, match=r"same in another order.*table=vae.table"):
        Rows(frame[["c", "a", "b"]]).check(vae)
    Rows(frame[["c", "a", "b"]], table=vae.table).check(vae)


def test_levels_are_saved_with_the_model(vae, tmp_path):
    vae.save(tmp_path / "vae.safetensors")
    assert VAE.load(tmp_path / "vae.safetensors").table == vae.table == vae.config.table


def test_a_fit_tells_a_model_without_names_what_its_columns_are():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 2)), columns=["a", "b"])
    vae = VAE.from_config(VAEConfig.for_data(frame.to_numpy(), hidden=(4,), latent_dim=2))
    assert vae.table is None
    fit(vae, frame, epochs=1, validation=0.2, progress=False)
    np.testing.assert_array_equal(seen(vae, frame[["b", "a"]]), seen(vae, frame))


def test_imputed_cells_go_back_by_the_levels_of_the_fit(vae):
    given = FRAME[FRAME.island != "Dream"].assign(
        island=lambda f: pd.Categorical(f.island, ["Torgersen", "Dream", "Biscoe"])
    )[["island", "seen", "mass", "adult"]]
    found = impute(vae, given, num_samples=50, progress=False)
    assert found.feature.values.tolist() == list(FRAME.columns)
    filled = to_frame(found, given)
    codes = found.x.sel(feature="island").values.astype(int)
    assert filled.island.tolist() == [["Biscoe", "Dream", "Torgersen"][code] for code in codes]


def test_covariates_are_coded_as_in_the_fit():
    draws = np.random.default_rng(0)
    frame = pd.DataFrame(draws.normal(size=(60, 2)), columns=["a", "b"])
    frame["sex"] = draws.choice(["f", "m", "x"], 60)
    frame["age"] = draws.normal(40, 10, 60)
    data = load_data(frame, None, context=["sex", "age"])
    vae = VAE.from_config(VAEConfig.for_data(data, hidden=(4,), latent_dim=2))
    some = (frame.sex != "f").to_numpy()
    other = load_data(frame[some], None, context=["age", "sex"])
    found = Rows.of(other, None, vae)
    torch.testing.assert_close(found.covariates, data.covariates[some.tolist()])
    unseen = load_data(frame.replace({"sex": {"x": "z"}}), None, context=["sex", "age"])
    with pytest.raises(ValueError, match=r"'sex'.*'z' in row"):
        log_evidence(vae, unseen)


def test_parquet_is_matched_by_name(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 2)), columns=["a", "b"])
    frame[["b", "a"]].to_parquet(tmp_path / "rows.parquet")
    vae = VAE.from_config(VAEConfig.for_data(frame, hidden=(4,), latent_dim=2))
    np.testing.assert_array_equal(seen(vae, tmp_path / "rows.parquet"), seen(vae, frame))


def test_numbers_that_single_precision_merges_are_told_of():
    seconds = 1.7e9 + np.random.default_rng(0).random((40, 2))
    with pytest.warns(UserWarning, match="single precision merges their values"):
        VAEConfig.for_data(seconds, hidden=(4,), latent_dim=2)

"""What `ppl-vae` takes the columns of a table for: said, told, remembered."""

import json

import numpy as np
import pytest

from ppl_vae import ColumnKind, load_data
from ppl_vae.data.filled import filled_table
from ppl_vae.run import Run

QUICK = ["--epochs", "1", "--draws", "30", "--hidden", "8", "--latent-dim", "1", "--quiet"]


def table(path, rows=60, species="ash,birch,elm", first="2026-01-01"):
    rng = np.random.default_rng(0)
    named = species.split(",")
    lines = ["species,grade,old,day,height"]
    for i in range(rows):
        day = np.datetime64(first) + np.timedelta64(i, "D")
        height = "" if i == 3 else f"{rng.normal():.4f}"
        lines.append(f"{named[i % len(named)]},{1 + i % 4},{str(i % 3 > 0).lower()},{day},{height}")
    path.write_text("\n".join(lines) + "\n")


def test_a_dry_run_says_what_columns_are_taken_for_and_stops(command, tmp_path):
    table(tmp_path / "t.csv")
    arguments = ["fit", "t.csv", "--drop", "species", "--dry-run"]
    code, out, error = command(*arguments)
    assert (code, error) == (0, "")
    for said in ("48 rows to fit to, 12 to test by", "false, true", "days since 1970-01-01"):
        assert said in out
    assert "Few different whole numbers may be codes or grades" in out
    assert "Nothing was fitted" in out
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
    found = json.loads(command(*arguments, "--column", "grade=count", "--json")[1])
    kinds = {column["name"]: column["kind"] for column in found["columns"]}
    assert kinds == {"grade": "count", "old": "binary", "day": "real", "height": "real"}
    assert [column["missing"] for column in found["columns"]] == [0, 0, 0, 1]
    assert found["vae"]["event_shape"] == [4]
    out = command("fit", "t.csv", "--dry-run")[1]
    assert "text of 3 levels in 60 cells" in out  # whatever the choices come to


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--column", "grade"], "--column is 'grade'; pass NAME=KIND, such as grade=ordinal"),
        (["--column", "grade=number"], "'grade' is told to be 'number' (--column); accepted are"),
        (["--column", "size=real"], "--column size is no column to be modeled of"),
        (["--column", "grade=ordinal:1,2"], "'3' in line 4 of column 'grade'; it is none of the"),
        (["--layer", "raw"], "--layer raw chooses a layer of an AnnData"),
    ],
)
def test_what_cannot_be_told_is_one_line(command, tmp_path, arguments, message):
    table(tmp_path / "t.csv")
    code, out, error = command("fit", "t.csv", *arguments, "--dry-run")
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert message in error


def test_a_run_remembers_its_columns(command, tmp_path):
    table(tmp_path / "t.csv")
    kept = ["--drop", "species", "--column", "grade=count"]
    assert command("fit", "t.csv", *kept, "--out", "run", *QUICK)[0] == 0
    run = Run(tmp_path / "run")
    assert (
        run.columns
        == load_data(tmp_path / "t.csv", column={"grade": "count"}, drop="species").columns
    )
    assert command("evaluate", "run", "--draws", "30", "--quiet")[0] == 0
    table(tmp_path / "new.csv", rows=5, first="2027-01-01")
    encode = ["encode", "run", "new.csv", "--draws", "30", "--drop", "species", "--quiet"]
    assert command(*encode)[0] == 0
    days = (tmp_path / "new.csv").read_text()
    for new, message in {
        days.replace("true", "perhaps"): "'perhaps' in line 3 of column 'old'; it is none of the",
        days.replace("2027-01-", ""): "column 'day'; it is no date, which the fit had",
    }.items():
        (tmp_path / "new.csv").write_text(new)
        code, _, error = command(*encode, "--force")
        assert (code, error.count("\n")) == (2, 1)
        assert message in error
    (tmp_path / "new.csv").write_text(days.replace("true", "perhaps"))
    assert command(*encode, "--force", "--unseen", "missing")[0] == 0


def test_filled_cells_are_levels_and_dates(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("kind,old,day,b\nash,true,2026-01-01,1.5\n,,,\nelm,?,2026-01-03,2.5\n")
    kinds = (
        ColumnKind("kind", "categorical", ("ash", "birch", "elm")),
        ColumnKind("old", "binary", ("false", "true")),
        ColumnKind("day", "real", None, "", "days since 1970-01-01"),
        ColumnKind("b", "real"),
    )
    names = [kind.name for kind in kinds]
    day = float((np.datetime64("2026-01-02") - np.datetime64("1970-01-01")).astype(int))
    values = np.array([[0, 1, 0, 1.5], [1, 0.25, day + 0.2, 0.5], [2, 0.75, 0, 2.5]])
    missing = np.array([[False] * 4, [True] * 4, [False, True, False, False]])
    lines = filled_table(path, names, values, missing, kinds=kinds).splitlines()
    assert lines[2:] == ["birch,false,2026-01-02,0.5", "elm,true,2026-01-03,2.5"]
    with pytest.raises(ValueError, match=r"'kind' would be filled with 0.5, .* none of its 3"):
        filled_table(path, names, np.full((3, 4), 0.5), missing, kinds=kinds)

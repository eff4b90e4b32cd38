"""`ppl-vae impute`: the same table, with its missing cells filled."""

import json

import numpy as np
import pandas as pd
import pytest

from ppl_vae import impute, load_data
from ppl_vae.data.filled import filled_table
from ppl_vae.run import Run

QUICK = ["--epochs", "2", "--draws", "50", "--hidden", "16", "--latent-dim", "2", "--quiet"]
COLUMNS = ["--label", "kind", "--drop", "name"]


def table(path, rows=60, empty=(3,)):
    rng = np.random.default_rng(0)
    lines = ["name,height,kind,width"]
    for i in range(rows):
        width = "NA" if i == 3 else f"{rng.normal():.4f}"
        height = "" if i in (*empty, 5) else f"{rng.normal() * 10:.4f}"
        lines.append(f'"row, {i}",{height},{"ab"[i % 2]},{width}')
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def folder(run_command, tmp_path_factory):
    folder = tmp_path_factory.mktemp("imputing")
    table(folder / "train.csv", empty=())
    table(folder / "t.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run_command("fit", "train.csv", *COLUMNS, *QUICK, "--out", "run")[0] == 0
    return folder


@pytest.fixture
def command(run_command, folder, monkeypatch):
    monkeypatch.chdir(folder)
    return run_command


def test_cells_are_those_of_impute_and_all_else_is_as_it_was(command, folder):
    code, out, _ = command("impute", "run", "t.csv", *COLUMNS, "--out", "full.csv", "--draws", 200)
    assert code == 0
    assert "3 cells of 2 rows filled; written to full.csv" in out
    assert "entries are missing at random" in out
    before = (folder / "t.csv").read_text().splitlines()
    after = (folder / "full.csv").read_text().splitlines()
    differ = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    assert differ == [4, 6]
    full = pd.read_csv(folder / "full.csv")
    run = Run(folder / "run")
    x = run.rows(load_data(folder / "t.csv", None, label="kind", drop="name"))
    found = impute(run.vae(), x, num_samples=200, num_draws=1, progress=False)
    np.testing.assert_allclose(full[["height", "width"]], found.x, rtol=1e-5)
    code, out, error = command("impute", "run", "t.csv", *COLUMNS, "--out", "full.csv")
    assert (code, out) == (2, "")
    assert "--force" in error
    draw = ["--fill", "draw", "--draws", 200, "--force", "--json", "--out", "full.csv"]
    code, out, _ = command("impute", "run", "t.csv", *COLUMNS, *draw)
    assert code == 0
    said = json.loads(out)
    assert (said["cells"], said["rows"]) == (3, 2)
    full = pd.read_csv(folder / "full.csv")
    np.testing.assert_allclose(full[["height", "width"]], found.draws[0], rtol=1e-5)


def test_columns_in_another_order_and_decimal_commas(command, folder):
    (folder / "new.csv").write_text("width;height\n1,5;2,25\n;3,5\n2,5;\n")
    assert command("impute", "run", "new.csv", "--quiet")[0] == 0
    lines = (folder / "run" / "new.imputed.csv").read_text().splitlines()
    assert lines[:2] == ["width;height", "1,5;2,25"]
    width, height = lines[2].split(";")
    assert height == "3,5"
    assert np.isfinite(float(width.replace(",", ".")))
    assert "." not in lines[2] + lines[3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "digits"), "accepted are tables"),
        (("run", "lost.csv"), "no file or folder"),
        (("run", "t.csv", "--drop", "name", "--label", "kind", "--fill", "best"), "--fill is"),
        (("run", "t.csv", "--drop", "name"), "has 'kind', which the fit had not"),
        (("run", "t.csv", "--out", "t.xlsx"), "--out is 't.xlsx'"),
        (("other", "t.csv"), "no run folder"),
        (("run", "t.csv", "--drop", "name", "--label", "kind", "--draws", "9"), "--draws is 9"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(command, arguments, message):
    code, out, error = command("impute", *arguments)
    assert (code, out) == (2, "")
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_a_table_that_was_changed_meanwhile_is_refused(tmp_path):
    table(tmp_path / "t.csv", rows=9)
    with pytest.raises(ValueError, match="has 9 rows where 8 were read"):
        filled_table(tmp_path / "t.csv", ["width"], np.zeros((8, 1)), np.ones((8, 1), bool))

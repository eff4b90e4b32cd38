"""The command line for people: mistakes, options in a file, lists, help, completion."""

import json
import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import typer

from ppl_vae import PRESETS
from ppl_vae.cli import app, names
from ppl_vae.cli.examples import EXAMPLES
from ppl_vae.cli.mistakes import in_options, meant, options_of
from ppl_vae.components.decoders import DECODERS
from ppl_vae.components.encoders import ENCODERS
from ppl_vae.components.networks import NETWORKS
from ppl_vae.components.networks.network import ACTIVATIONS
from ppl_vae.components.priors import PRIORS
from ppl_vae.components.scales import SCALES
from ppl_vae.inference.engine.step import ENGINES
from ppl_vae.inference.objectives import OBJECTIVES
from ppl_vae.inference.schedules import SCHEDULES
from ppl_vae.run.recipe import DEVICES, LOGS, PRECISIONS

PROGRAM = typer.main.get_command(app)
QUICK = ["--epochs", "2", "--draws", "50", "--hidden", "8", "--latent-dim", "1"]


def table(path, rows=60):
    rng = np.random.default_rng(0)
    lines = ["id,height,width,kind"]
    lines += [f"{i},{rng.normal():.4f},{rng.normal():.4f},{'ab'[i % 2]}" for i in range(rows)]
    path.write_text("\n".join(lines) + "\n")


def test_names_are_those_of_the_registries():
    known = {
        "PRIORS": PRIORS,
        "GUIDES": ENCODERS,
        "LIKELIHOODS": DECODERS,
        "NETWORKS": NETWORKS,
        "OBJECTIVES": OBJECTIVES,
        "ACTIVATIONS": ACTIVATIONS,
        "SCALES": SCALES,
        "SCHEDULES": SCHEDULES,
        "ENGINES": ENGINES,
        "DEVICES": DEVICES,
        "LOGS": LOGS,
        "PRECISIONS": PRECISIONS,
    }
    for name, registry in known.items():
        assert sorted(getattr(names, name)) == sorted(registry), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "--lr", "0.1"], "No such option: --lr; did you mean --learning-rate?"),
        (["fit", "--epoch", "3"], "No such option: --epoch; did you mean --epochs?"),
        (["fit", "--latents", "3"], "No such option: --latents; did you mean --latent-dim?"),
        (["sample", "r", "--n", "3"], "No such option: --n; did you mean --num-samples?"),
        (["fit", "--unseen", "x"], "No such option: --unseen; it is one of diagnose, encode"),
        (["fit", "--zebra"], "No such option: --zebra; ppl-vae fit --help lists them"),
        (["diagnose"], "Missing argument 'RUN'; ppl-vae diagnose --help shows how"),
        (["smaple"], "No such command 'smaple'. Did you mean 'sample'?"),
        (["list", "cats"], "KIND is 'cats'; accepted are priors, guides, likelihoods"),
    ],
)
def test_a_mistake_is_answered_by_what_was_meant(command, arguments, message):
    code, out, error = command(*arguments)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert error.startswith(f"ppl-vae: {message}")


def test_every_option_is_its_own_meaning_and_no_other_name_is_an_option():
    for name, command in PROGRAM.commands.items():
        known = list(options_of(command))
        assert all(meant(option, known)[0] == option for option in known), name


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("learning_rate is -1; pass", "--learning-rate is -1; pass"),
        ("network is 'a': no; scale is 'b'", "--network is 'a': no; --scale is 'b'"),
        ("as with column={'a': 'count'} (--column)", "as with --column a=count"),
        ("missing with unseen='missing' (--unseen missing)", "missing with --unseen missing"),
        ("such as hidden=(32, 64), and", "such as --hidden 32,64, and"),
        ("say header=True or header=False", "say --header or --no-header"),
        ("conv:hidden=(32,64) or 'hidden=3'", "conv:hidden=(32,64) or 'hidden=3'"),
        ("x has 1 row; x is", "the data have 1 row; x is"),
    ],
)
def test_errors_of_functions_speak_of_options(message, said):
    known = options_of(PROGRAM.commands["fit"]) | options_of(PROGRAM.commands["encode"])
    assert in_options(message, known) == said


def test_a_table_of_one_row(command, tmp_path):
    (tmp_path / "one.csv").write_text("a,b\n1.5,2.5\n")
    code, _, error = command("fit", "one.csv")
    assert code == 2
    assert "too few to split into rows to fit to and rows to test by; pass more rows" in error


def test_a_dry_run_prints_a_file_that_makes_the_same_fit(command, tmp_path):
    table(tmp_path / "t.csv")
    given = ["t.csv", "--label", "kind", "--drop", "id", "--guide", "full_rank", *QUICK]
    code, written, error = command("fit", *given, "--dry-run", "--quiet")
    assert (code, error) == (0, "")
    options = tomllib.loads(written)
    assert options["data"] == "t.csv"
    assert options["drop"] == ["id"]
    assert options["guide"] == "full_rank"
    assert options["network"] == "mlp:hidden=(8,),activation=silu"
    assert (options["learning-rate"], options["batch-size"]) == (0.002, 16)
    (tmp_path / "run.toml").write_text(written)
    assert command("fit", "--config", "run.toml", "--dry-run", "--quiet") == (0, written, "")
    assert written in command("fit", "--config", "run.toml", "--dry-run")[1]
    by_options = json.loads(command("fit", *given, "--json")[1])
    by_file = json.loads(command("fit", "--config", "run.toml", "--json")[1])
    assert by_options["test"] == by_file["test"]
    # What is given beside the file wins.
    other = command("fit", "--config", "run.toml", "--latent-dim", "2", "--dry-run", "--json")[1]
    assert json.loads(other)["options"] == {**options, "latent-dim": 2}


def test_presets_and_columns_of_several_kinds_come_back_from_the_file(command, tmp_path):
    rng = np.random.default_rng(0)
    lines = [f"{rng.normal():.3f},{'xyz'[i % 3]},{1 + i % 4}" for i in range(60)]
    (tmp_path / "m.csv").write_text("\n".join(["real,text,grade", *lines]))
    for given in (["m.csv", "--column", "grade=ordinal"], ["digits", "--preset", "burda-vae"]):
        written = command("fit", *given, "--dry-run", "--quiet")[1]
        (tmp_path / "run.toml").write_text(written)
        assert command("fit", "--config", "run.toml", "--dry-run", "--quiet") == (0, written, "")
        one, other = (
            json.loads(command("fit", *words, "--dry-run", "--json")[1])["vae"]
            for words in (given, ["--config", "run.toml"])
        )
        assert {**one, "reason": ""} == {**other, "reason": ""}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr = 0.1", "whose 'lr' is no option of fit; did you mean learning-rate?"),
        ("latent_dims = 3", "whose 'latent_dims' is no option of fit; did you mean latent-dim?"),
        ("dry-run = true", "whose 'dry-run' is no option of fit"),
        ("epochs 3", "which is no TOML: "),
        ("epochs = 'many'", "--epochs"),
        ("epochs = 0", "--epochs is 0"),
        ("hidden = [8, 'a']", "--hidden is '8,a'"),
    ],
)
def test_a_file_of_options_with_a_mistake(command, tmp_path, text, message):
    (tmp_path / "run.toml").write_text(text)
    code, out, error = command("fit", "--config", "run.toml")
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert message in error
    assert not (tmp_path / "runs").exists()


def test_a_file_that_is_not_there(command):
    code, _, error = command("fit", "--config", "none.toml")
    assert (code, error) == (
        2,
        "ppl-vae: --config is 'none.toml', which cannot be read: No such file or directory\n",
    )


def test_lists_are_those_of_the_registries(command, monkeypatch):
    found = json.loads(command("list", "--json")[1])
    registries = {
        "priors": PRIORS,
        "guides": ENCODERS,
        "likelihoods": DECODERS,
        "networks": NETWORKS,
        "objectives": OBJECTIVES,
        "presets": PRESETS,
    }
    assert [*found] == [*registries, "data"]
    for kind, registry in registries.items():
        assert [choice["name"] for choice in found[kind]] == list(registry)
        assert all(choice["what"] and ":math:" not in choice["what"] for choice in found[kind])
    flow = next(choice for choice in found["priors"] if choice["name"] == "flow")
    assert flow["options"]["hidden"] == "(128,128)"
    monkeypatch.setenv("COLUMNS", "120")
    out = command("list", "priors")[1]
    assert "vamp:components=100" in out
    assert "guides" not in out
    assert {"digits", "mnist"} <= {choice["name"] for choice in found["data"]}


def test_examples_in_help_are_understood(command):
    assert set(EXAMPLES) == set(PROGRAM.commands)
    for name, examples in EXAMPLES.items():
        for typed in examples:
            words = [word for word in shlex.split(typed) if word not in (">", "run.toml")]
            if "--config" in words:
                words.remove("--config")  # the file is not there
            assert words[:2] == ["ppl-vae", name]
            PROGRAM.commands[name].make_context(name, words[2:]).close()


def test_help_has_groups_and_examples(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    code, out, _ = command("fit", "--help")
    assert code == 0
    groups = ["Data", "Model: what is fitted", "Fit: how", "Results", "Machine", "Examples:"]
    places = [out.index(group) for group in groups[:1] + groups[1:3] + groups[-1:]]
    assert places == sorted(places)
    assert all(group in out for group in groups)
    assert "Exit codes: 0, done" in command("--help")[1]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("ppl-vae di", {"diagnose"}),
        ("ppl-vae fit --lea", {"--learning-rate"}),
        ("ppl-vae fit --preset ke", {"keras-mlp", "keras-r"}),
        ("ppl-vae fit --prior va", {"vamp"}),
        ("ppl-vae diagnose ", {"runs/digits"}),
        ("ppl-vae list p", {"priors", "presets"}),
    ],
)
def test_shells_complete(command, tmp_path, monkeypatch, typed, expected):
    (tmp_path / "runs" / "digits").mkdir(parents=True)
    (tmp_path / "runs" / "digits" / "config.json").write_text("{}")
    monkeypatch.setenv("_PPL_VAE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(typed.count(" ")))
    code, out, _ = command()
    assert code == 0
    assert set(out.split()) == expected


def test_completion_does_not_wait_for_torch():
    code = (
        "import sys; sys.argv = ['ppl-vae']\n"
        "from ppl_vae.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    typed = {"COMP_WORDS": "ppl-vae fit --preset ", "COMP_CWORD": "3"}
    environment = {**os.environ, "_PPL_VAE_COMPLETE": "complete_bash", **typed}
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment)


def test_every_command_says_what_is_next(command, tmp_path):
    """And nothing of it where numbers alone, or nothing, is asked for."""
    table(tmp_path / "t.csv")
    fit = ["fit", "t.csv", "--drop", "id", "--drop", "kind", *QUICK]
    assert "Next: ppl-vae diagnose 'runs/a run'" in command(*fit, "--out", "runs/a run")[1]
    run = str(Path("runs") / "a run")
    out = command("evaluate", run, "--draws", "50")[1]
    assert "Next: ppl-vae diagnose 'runs/a run'" in out
    assert "density, which depends on the units of the data" in " ".join(out.split())
    assert "Next: numpy.load(" in command("sample", run)[1]
    encode = ["encode", run, "t.csv", "--drop", "id", "--drop", "kind", "--draws", "30"]
    assert "Next: xarray.open_datatree(" in command(*encode)[1]
    assert "Next:" not in command("evaluate", run, "--draws", "50", "--json")[1]

"""The command line: files, numbers, exit codes and one-line errors."""

import errno
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray as xr

from ppl_vae import VAE, load_data

FILES = [
    "config.json",
    "history.nc",
    "latents.png",
    "losses.png",
    "map.nc",
    "metrics.json",
    "posterior.nc",
    "prior_draws.png",
    "reconstructions.png",
    "vae.safetensors",
]
QUICK = ["--epochs", "2", "--draws", "50", "--hidden", "16", "--latent-dim", "2", "--threads", "1"]


@pytest.fixture
def run_folder(command, tmp_path):
    assert command("fit", *QUICK, "--out", "run", "--quiet") == (0, "", "")
    return tmp_path / "run"


def table(path, rows=60, constant=False):
    rng = np.random.default_rng(0)
    lines = ["height,width,kind"]
    for i in range(rows):
        width = "2.5" if constant else ("" if i == 3 else f"{rng.normal():.4f}")
        lines.append(f"{rng.normal() * 10:.4f},{width},{'ab'[i % 2]}")
    path.write_text("\n".join(lines) + "\n")


def test_help_does_not_import_torch():
    """What makes it slow; how many seconds it takes is the machine's to say."""
    code = (
        "import sys; sys.argv = ['ppl-vae', '--help']\n"
        "from ppl_vae.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'torchvision', 'arviz', 'matplotlib', 'lightning_fabric', 'numpy'}\n"
        "sys.exit(bool(heavy & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_import_is_light():
    code = "import sys, ppl_vae; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_fit_writes_a_run(run_folder):
    assert sorted(p.name for p in run_folder.iterdir()) == FILES
    vae = VAE.load(run_folder / "vae.safetensors")
    assert vae.latent_dim == 2
    metrics = json.loads((run_folder / "metrics.json").read_text())
    assert metrics["test"]["rows"] == 359
    assert metrics["fit"]["epochs"] == 2
    tree = xr.open_datatree(run_folder / "posterior.nc", engine="h5netcdf").load()
    assert tree.posterior.z.sizes == {"chain": 1, "draw": 200, "row": 100, "latent": 2}
    np.testing.assert_array_equal(tree.observed_data.x, load_data("digits", "test").x[:100])
    assert tree.constant_data.label.values.tolist() == (
        load_data("digits", "test").labels[:100].tolist()
    )
    history = xr.open_dataset(run_folder / "history.nc", engine="h5netcdf").load()
    assert history.sizes == {"epoch": 2}


def test_fit_prints_where_and_how_well(command, tmp_path):
    code, out, err = command("fit", *QUICK)
    assert code == 0
    for phrase in ("359 test rows", "ELBO", "log p(x), 50 draws", "independent entries"):
        assert phrase in out
    assert "Written to runs/digits" in out
    assert "Next: ppl-vae diagnose runs/digits" in out
    assert "one more is a factor of 2.7, and 1.44 bits. Bits per dimension" in out
    assert err == ""
    # A second run finds a folder of its own.
    command("fit", *QUICK, "--quiet")
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["digits", "digits-2"]


def test_json(command):
    code, out, _ = command("fit", *QUICK, "--json")
    metrics = json.loads(out)
    assert code == 0
    assert metrics["run"] == "runs/digits"
    assert set(metrics["test"]["log_evidence"]) == {
        "nats_per_row",
        "standard_error",
        "bits_per_dimension",
    }
    evidence, elbo = (metrics["test"][key]["nats_per_row"] for key in ("log_evidence", "elbo"))
    assert evidence > elbo


def test_fit_is_reproducible(command):
    one = json.loads(command("fit", *QUICK, "--json")[1])["test"]
    two = json.loads(command("fit", *QUICK, "--json")[1])["test"]
    other = json.loads(command("fit", *QUICK, "--json", "--seed", "1")[1])["test"]
    assert one == two != other


def test_evaluate_agrees_with_fit(command, run_folder):
    code, out, _ = command("evaluate", run_folder, "--draws", "50", "--json")
    assert code == 0
    assert json.loads(out) == json.loads((run_folder / "metrics.json").read_text())["test"]
    assert "359 test rows" in command("evaluate", run_folder, "--draws", "50")[1]


def test_sample(command, run_folder):
    assert command("sample", run_folder, "--num-samples", "5")[0] == 0
    drawn = np.load(run_folder / "samples.npz")
    assert drawn["z"].shape == (5, 2)
    assert drawn["x"].shape == (5, 8, 8)
    assert command("sample", run_folder, "--out", "draws.png", "--quiet") == (0, "", "")
    assert command("sample", run_folder, "--out", "draws.png")[0] == 2
    assert command("sample", run_folder, "--out", "draws.png", "--force")[0] == 0


def test_encode_new_rows(command, run_folder, tmp_path):
    np.save(tmp_path / "new.npy", np.random.default_rng(0).integers(0, 17, (7, 8, 8)) / 16)
    assert command("encode", run_folder, "new.npy", "--draws", "30", "--out", "new.nc")[0] == 0
    tree = xr.open_datatree(tmp_path / "new.nc", engine="h5netcdf").load()
    assert tree.posterior.z.sizes == {"chain": 1, "draw": 30, "row": 7, "latent": 2}
    assert "log_weight" in tree.sample_stats


def test_diagnose_and_report_add_to_the_run(command, run_folder):
    code, out, err = command("diagnose", run_folder, "--draws", "50")
    assert (code, err) == (0, "")
    assert out.startswith("Which of 359 rows can be believed")
    assert out.startswith((run_folder / "diagnosis.txt").read_text())
    assert "Next: ppl-vae report" in out
    tree = xr.open_datatree(run_folder / "diagnosis.nc", engine="h5netcdf").load()
    assert tree.rows.verdict.sizes == {"row": 359}
    code, out, err = command("report", run_folder)
    assert (code, err) == (0, "")
    page = run_folder / "report.html"
    assert out.startswith(f"Written to {page}\nNext: {page.resolve().as_uri()}")
    page = (run_folder / "report.html").read_text()
    assert "Which of 359 rows can be believed" in page
    found = json.loads(command("diagnose", run_folder, "--draws", "50", "--json")[1])
    assert sum(found["verdicts"].values()) == 359


def test_pictures_of_images_and_of_tables(command, run_folder, tmp_path):
    code, out, err = command("pictures", "run", "--which", "1,0")
    assert (code, err) == (0, "")
    names = ["interpolation", "latent_map", "manifold", "traversals"]
    assert out.startswith(f"Written to run: {', '.join(f'{name}.png' for name in names)}\nNext: ")
    assert all((run_folder / f"{name}.png").stat().st_size > 5000 for name in names)
    table(tmp_path / "sizes.csv")
    one = ("--epochs", 1, "--draws", 50, "--latent-dim", 1, "--quiet")
    assert command("fit", "sizes.csv", "--label", "kind", *one, "--out", "one")[0] == 0
    assert command("pictures", "one")[1].startswith("Written to one: traversals.png\n")


def test_csv_with_a_missing_cell_and_labels(command, tmp_path):
    table(tmp_path / "table.csv")
    code, out, err = command("fit", "table.csv", "--label", "kind", *QUICK)
    assert (code, err) == (0, "")
    assert "normal likelihood" in out
    tree = xr.open_datatree(tmp_path / "runs/table/posterior.nc", engine="h5netcdf").load()
    assert list(tree.observed_data.feature.values) == ["height", "width"]
    assert set(tree.constant_data.label.values) == {"a", "b"}


def test_conv_binarized(command):
    arguments = ["--network", "conv", "--hidden", "4,16", "--binarize", "dynamic", "--epochs", "1"]
    code, out, _ = command("fit", *arguments, "--draws", "50", "--heads", "joint")
    assert code == 0
    assert "bernoulli likelihood" in out


def test_resume_an_interrupted_run(command, tmp_path, monkeypatch):
    import ppl_vae.run.afterwards as module

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "evaluate", interrupted)
        code, _, err = command("fit", *QUICK, "--out", "run")
    assert code == 130
    assert err == "ppl-vae: interrupted; the fit in 'run.partial' goes on with --resume\n"
    assert [p.name for p in tmp_path.iterdir()] == ["run.partial"]
    code, _, err = command("fit", *QUICK, "--out", "run")
    assert code == 2
    assert "--resume" in err
    assert command("fit", *QUICK, "--out", "run", "--resume", "--quiet") == (0, "", "")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == FILES
    whole = command("fit", *QUICK, "--json")[1]
    resumed = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert resumed["test"] == json.loads(whole)["test"]


def test_resume_a_run_that_was_not_named(command, tmp_path, monkeypatch):
    """It is the latest unfinished one of that name, beside a finished one."""
    import ppl_vae.run.afterwards as module

    assert command("fit", *QUICK, "--quiet")[0] == 0

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "evaluate", interrupted)
        code, _, err = command("fit", *QUICK, "--quiet")
    assert (code, "'runs/digits-2.partial' goes on with --resume" in err) == (130, True)
    assert command("fit", *QUICK, "--resume", "--quiet") == (0, "", "")
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["digits", "digits-2"]


def test_an_interruption_with_nothing_to_go_on_from_promises_nothing(
    command, tmp_path, monkeypatch
):
    import ppl_vae.run.making as module

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "fit", interrupted)
    assert command("fit", *QUICK, "--out", "run") == (130, "", "ppl-vae: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_a_fit_that_breaks_off_exits_with_1_and_keeps_what_it_has(command, tmp_path):
    code, _, err = command("fit", *QUICK, "--learning-rate", "1e30", "--out", "run")
    assert code == 1
    assert err.startswith("ppl-vae: the fit stopped early: the loss is ")
    assert "learning rate" in err
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == FILES


def test_an_existing_run_is_never_overwritten_without_force(command, run_folder):
    before = (run_folder / "vae.safetensors").read_bytes()
    code, _, err = command("fit", *QUICK, "--out", "run", "--seed", "1")
    assert code == 2
    assert err == (
        "ppl-vae: --out is 'run', which exists; choose another folder, or pass --force\n"
    )
    assert (run_folder / "vae.safetensors").read_bytes() == before
    assert command("fit", *QUICK, "--out", "run", "--seed", "1", "--force", "--quiet")[0] == 0
    assert (run_folder / "vae.safetensors").read_bytes() != before


def test_force_does_not_replace_what_is_no_run(command, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("irreplaceable")
    code, _, err = command("fit", *QUICK, "--out", "thesis", "--force")
    assert code == 2
    assert "is no run folder" in err
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "irreplaceable"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "mnits"], "'mnits'"),
        (["fit", "missing.csv"], "missing.csv"),
        (["fit", "short.npz"], "truncated"),
        (["fit", "table.csv", "--column", "kin=real"], "kin"),
        (["fit", "constant.csv", "--label", "kind"], "never varies in features ['width']"),
        (["fit", "--epochs", "0"], "--epochs is 0; pass at least 1"),
        (["fit", "--epochs", "-2"], "epochs is -2"),
        (["fit", "--epochs", "many"], "'--epochs'"),
        (["fit", "--batch-size", "100000"], "--batch-size is 100000"),
        (
            ["fit", "--network", "transformer"],
            "--network is 'transformer': accepted are 'mlp', 'conv'",
        ),
        (["fit", "--scale", "variance"], "accepted are 'log_variance', 'log_scale', 'softplus'"),
        (["fit", "--likelihood", "bernoulli"], "values such as"),
        (["fit", "--hidden", "a,b"], "--hidden is 'a,b'"),
        (["fit", "--hidden", "0"], "pass whole numbers of at least 1"),
        (["fit", "--binarize", "often"], "'often'"),
        (["fit", "--engine", "steam"], "--engine is 'steam'"),
        (["fit", "--device", "abacus"], "abacus"),
        (["fit", "--seed", "-1"], "--seed is -1"),
        (["fit", "--resume", "--out", "new"], "no unfinished run"),
        (["fit", "--out", "file.txt/run"], "file.txt/run"),
        (["fit", "--nonsense"], "--nonsense"),
        (["evaluate", "nowhere"], "no run folder"),
        (["sample", "."], "no run folder"),
        (["dance"], "dance"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(command, tmp_path, arguments, message):
    (tmp_path / "file.txt").write_text("")
    table(tmp_path / "table.csv")
    table(tmp_path / "constant.csv", constant=True)
    np.savez(tmp_path / "whole.npz", x=np.zeros((50, 4)))
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "short.npz").write_bytes(whole[: len(whole) // 2])
    before = sorted(tmp_path.iterdir())
    quick = [] if arguments[0] != "fit" or "--epochs" in arguments else ["--epochs", "1"]
    code, out, err = command(*arguments, *quick)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("ppl-vae: ")
    assert message in err
    left = [p for p in sorted(tmp_path.iterdir()) if p.name != "runs"]
    assert left == before
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize(
    ("which", "message"),
    [("0", "pass two latents, such as 0,1"), ("0,7", "7"), ("a,b", "pass whole numbers")],
)
def test_bad_pairs_of_latents(command, run_folder, which, message):
    code, out, err = command("pictures", "run", "--which", which)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (run_folder / "traversals.png").exists()


def test_a_run_whose_config_was_changed_is_refused(command, run_folder):
    settings = json.loads((run_folder / "config.json").read_text())
    settings["vae"]["latent_dim"] = 3
    (run_folder / "config.json").write_text(json.dumps(settings))
    code, _, err = command("evaluate", run_folder)
    assert code == 2
    assert "was changed after the fit" in err


def test_rows_of_another_shape_are_not_encoded(command, run_folder, tmp_path):
    np.save(tmp_path / "new.npy", np.zeros((7, 5)))
    code, _, err = command("encode", run_folder, "new.npy")
    assert code == 2
    assert "this VAE was built for (row, 8, 8)" in err
    assert not (run_folder / "new.nc").exists()


def test_data_behind_a_link_without_a_suffix(command, tmp_path):
    """As DVC and git-annex have it: the name says what the file is."""
    (tmp_path / "3f2a9c").write_text("a,b\n" + "1.5,2\n2.5,3\n0.5,1\n" * 10)
    (tmp_path / "data.csv").symlink_to("3f2a9c")
    assert command("fit", "data.csv", *QUICK, "--out", "run", "--quiet")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--draws", "20"), "--draws is 20"),
        (("--batch-size", "0"), "--batch-size is 0"),
        (("--device", "cuda"), "finds no GPU"),
        (("--hidden", "10000000000000"), "not enough memory"),
        (("--prior", "vamp:componets=5"), "has no option 'componets'; accepted is components=100"),
        (("--objective", "beta:bet=1"), "has no option 'bet'"),
        (("--optimizer", "sgd"), "optimizer is 'sgd'"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="one case asks for a GPU that is not there")
def test_what_cannot_be_done_is_said_before_the_fit(command, tmp_path, arguments, message):
    code, _, err = command("fit", *QUICK, "--out", "run", *arguments)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_what_fails_after_the_fit_costs_no_more_than_itself(command, tmp_path, monkeypatch):
    import ppl_vae.run.afterwards as module

    def broken(*_, **__):
        raise RuntimeError("no ink")

    monkeypatch.setattr(module, "plot_draws", broken)
    code, _, err = command("fit", *QUICK, "--out", "run", "--quiet")
    assert code == 1
    assert err == "ppl-vae: the run is in run, but prior_draws.png is missing (no ink)\n"
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == sorted(
        set(FILES) - {"prior_draws.png"}
    )


def test_other_data_are_noticed(command, tmp_path):
    np.save(tmp_path / "d.npy", np.random.default_rng(0).random((60, 4)))
    assert command("fit", "d.npy", *QUICK, "--out", "run", "--quiet")[0] == 0
    np.save(tmp_path / "d.npy", np.random.default_rng(1).random((60, 4)))
    code, _, err = command("evaluate", "run", "--draws", "50")
    assert code == 2
    assert "was changed after the fit" in err


def test_columns_are_matched_by_name(command, tmp_path):
    table(tmp_path / "a.csv")
    options = ["--label", "kind"]
    assert command("fit", "a.csv", *options, *QUICK, "--out", "run", "--quiet")[0] == 0
    lines = [line.split(",") for line in (tmp_path / "a.csv").read_text().split()]
    (tmp_path / "b.csv").write_text("\n".join(",".join([w, h, k]) for h, w, k in lines) + "\n")
    for name in ("a", "b"):
        done = command("encode", "run", f"{name}.csv", *options, "--out", f"{name}.nc", "--quiet")
        assert done[0] == 0
    a, b = (xr.open_datatree(tmp_path / f"{n}.nc", engine="h5netcdf").load() for n in "ab")
    np.testing.assert_array_equal(a.sample_stats.log_weight, b.sample_stats.log_weight)
    (tmp_path / "c.csv").write_text("height,depth,kind\n1,2,a\n2,3,b\n")
    code, _, err = command("encode", "run", "c.csv", *options)
    assert code == 2
    assert "has no column 'width' and has 'depth', which the fit had not" in err


def test_a_folder_that_cannot_be_written_to_is_refused_at_the_start(
    run_folder, command, monkeypatch
):
    """Not after minutes of judging rows. Tests may run as root, to whom no folder is read-only."""

    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("ppl_vae.cli.options.tempfile.TemporaryFile", refuse)
    for arguments in (
        ("diagnose", run_folder),
        ("pictures", run_folder),
        ("report", run_folder),
        ("sample", run_folder, "--out", run_folder / "new.npz"),
        ("encode", run_folder, "digits", "--out", run_folder / "new.nc"),
    ):
        code, out, error = command(*arguments)
        assert (code, out) == (2, "")
        assert "cannot be written to: Read-only file system" in error
        assert len(error.splitlines()) == 1


def test_paths_with_marks_of_rich_are_printed_as_they_are(command, tmp_path):
    name = "sweep[/lr] [bold]"
    code, out, _ = command("fit", *QUICK, "--out", name)
    assert code == 0
    assert f"Written to {name}: " in out
    code, _, err = command("fit", *QUICK, "--out", name)
    assert code == 2
    assert f"--out is '{name}', which exists" in err


def test_new_rows_with_gaps_that_the_fit_had_not(command, tmp_path):
    rows = np.random.default_rng(0).normal(size=(60, 3))
    lines = [",".join(f"{cell:.3f}" for cell in row) for row in rows]
    (tmp_path / "a.csv").write_text("\n".join(["a,b,c", *lines]))
    assert command("fit", "a.csv", *QUICK, "--out", "run", "--quiet")[0] == 0
    (tmp_path / "new.csv").write_text("\n".join(["a,b,c", "1,,2", *lines]))
    code, _, err = command("encode", "run", "new.csv", "--draws", "30")
    assert code == 2
    assert "has missing entries, and the run was fitted to rows that have none" in err
    assert err.count("\n") == 1


def test_a_warning_is_one_line_too(tmp_path):
    rows = "".join(f"{1_700_000_000 + i},{i % 7}\n" for i in range(50))
    (tmp_path / "log.csv").write_text("time,a\n" + rows)
    fit = [sys.executable, "-m", "ppl_vae.cli", "fit", "log.csv", *QUICK, "--quiet"]
    done = subprocess.run(fit, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0
    said = [line for line in done.stderr.splitlines() if "single precision" in line]
    assert len(said) == 1, done.stderr
    assert said[0].startswith("ppl-vae: warning: ")
    assert "load.py" not in done.stderr


def test_a_full_disk_is_said_in_one_line(command, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ppl_vae.inference.checkpoint.save_tensors", full)
    code, _, error = command("fit", "digits", "--epochs", "1", "--quiet")
    assert code == 2
    assert "no space left on the disk" in error
    assert "--resume" in error

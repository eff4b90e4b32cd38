"""What a fit tells while it runs: to functions, to Fabric's loggers, and into a run's folder."""

import csv
import warnings

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers import CSVLogger, Logger, TensorBoardLogger

from ppl_vae import VAE, VAEConfig, fit

QUICK = ["--epochs", "3", "--draws", "50", "--hidden", "16", "--latent-dim", "2", "--quiet"]
NUMBERS = {"train_loss", "validation_loss", "bound", "learning_rate", "rows_per_second"}


class Remembering(Logger):
    """A logger of somebody else's, as those of MLflow and W&B are."""

    name, version = "remembering", 0

    def __init__(self):
        self.metrics, self.settings, self.saved = [], None, 0

    def log_metrics(self, metrics, step=None):
        self.metrics.append((step, metrics))

    def log_hyperparams(self, params, *args, **kwargs):
        self.settings = params

    def save(self):
        self.saved += 1


@pytest.fixture
def rows():
    return torch.randn(64, 3)


@pytest.fixture
def vae(rows):
    return VAE.from_config(VAEConfig.for_data(rows, latent_dim=1, hidden=(4,)), seed=0)


def on_cpu(*loggers):
    return Fabric(accelerator="cpu", devices=1, loggers=list(loggers))


def test_a_function_gets_the_numbers_of_the_history(vae, rows):
    told = []
    result = fit(vae, rows, epochs=3, validation=0.25, on_metrics=told.append, progress=False)
    assert [each.pop("epoch") for each in told] == [1, 2, 3]
    assert all(set(each) == NUMBERS for each in told)
    for name in ("train_loss", "validation_loss", "learning_rate"):
        assert [each[name] for each in told] == result.history[name].values.tolist()
    assert all(each["bound"] == -each["validation_loss"] for each in told)
    assert all(each["rows_per_second"] > 0 for each in told)


def test_without_held_out_rows_there_is_no_bound(vae, rows):
    told = []
    fit(vae, rows, epochs=1, on_metrics=told.append, progress=False)
    assert set(told[0]) == NUMBERS - {"validation_loss", "bound"} | {"epoch"}


def test_loggers_get_the_same_and_how_it_was_fitted(vae, rows):
    told, logger = [], Remembering()
    options = {"epochs": 2, "validation": 0.25, "learning_rate": 0.01, "progress": False}
    fit(vae, rows, on_metrics=told.append, fabric=on_cpu(logger), **options)
    assert [{"epoch": step, **metrics} for step, metrics in logger.metrics] == told
    assert logger.settings["learning_rate"] == 0.01
    assert (logger.settings["likelihood"], logger.settings["objective"]) == ("normal", "Elbo")
    assert logger.settings["network"] == "mlp:hidden=(4,),activation=silu"
    assert logger.saved == 1


def test_what_is_told_does_not_change_the_fit(vae, rows):
    ends = []
    for function in (None, lambda _: torch.randn(7)):
        vae = VAE.from_config(vae.config, seed=0)
        fit(vae, rows, epochs=2, on_metrics=function, progress=False)
        ends.append(torch.nn.utils.parameters_to_vector(vae.parameters()))
    assert torch.equal(*ends)


def test_what_a_function_raises_ends_the_fit(vae, rows):
    def stop(metrics):
        if metrics["epoch"] == 2:
            raise StopIteration("enough")

    logger = Remembering()
    with pytest.raises(StopIteration, match="enough"):
        fit(vae, rows, epochs=9, on_metrics=stop, fabric=on_cpu(logger), progress=False)
    assert (len(logger.metrics), logger.saved) == (2, 1)


def test_csv_holds_every_epoch(vae, rows, tmp_path):
    logger = CSVLogger(tmp_path, name="fits")
    result = fit(vae, rows, epochs=3, fabric=on_cpu(logger), progress=False)
    with (tmp_path / "fits" / "version_0" / "metrics.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [int(line["step"]) for line in lines] == [1, 2, 3]
    losses = [float(line["train_loss"]) for line in lines]
    np.testing.assert_allclose(losses, result.history.train_loss)


def events(folder):
    """The last step of each number in a folder of TensorBoard's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
        found = loading.EventAccumulator(str(folder)).Reload()
    return {name: found.Scalars(name)[-1] for name in found.Tags()["scalars"]}


def test_tensorboard(vae, rows, tmp_path):
    pytest.importorskip("tensorboard")
    logger = TensorBoardLogger(tmp_path, name="fits", default_hp_metric=False)
    fit(vae, rows, epochs=3, validation=0.25, fabric=on_cpu(logger), progress=False)
    logger.finalize("success")
    assert {name: event.step for name, event in events(logger.log_dir).items()} == dict.fromkeys(
        NUMBERS, 3
    )


def test_a_run_keeps_its_log(command, tmp_path):
    assert command("fit", *QUICK, "--out", "run", "--log", "csv") == (0, "", "")
    lines = (tmp_path / "run" / "log" / "version_0" / "metrics.csv").read_text().splitlines()
    assert len(lines) == 4
    # And a run that replaces it, or is taken back, leaves nothing of it.
    assert command("fit", *QUICK, "--out", "run", "--force") == (0, "", "")
    assert not (tmp_path / "run" / "log").exists()


def test_a_run_is_logged_for_tensorboard(command, tmp_path):
    pytest.importorskip("tensorboard")
    assert command("fit", *QUICK, "--out", "run", "--log", "tensorboard")[0] == 0
    assert set(events(tmp_path / "run" / "log" / "version_0")) == NUMBERS


def test_logs_that_cannot_be_written_are_said_at_once(command, tmp_path, monkeypatch):
    code, _, error = command("fit", *QUICK, "--log", "paper")
    assert (code, error) == (
        2,
        "ppl-vae: --log is 'paper'; accepted are 'csv', 'tensorboard'\n",
    )

    def absent(*_, **__):
        raise ModuleNotFoundError("tensorboard")

    monkeypatch.setattr("ppl_vae.run.device.TensorBoardLogger", absent)
    code, _, error = command("fit", *QUICK, "--log", "tensorboard")
    assert code == 2
    assert "pip install tensorboard" in error
    assert not (tmp_path / "runs" / "digits").exists()


@pytest.mark.parametrize(
    ("objective", "called"), [(None, "ELBO"), ("mean_field", "ELBO"), ("beta:beta=2", "objective")]
)
def test_the_bar_says_what_it_shows_with_the_sign_of_the_table(
    vae, rows, objective, called, monkeypatch
):
    from ppl_vae.progress import Progress

    notes = []
    monkeypatch.setattr(Progress, "advance", lambda self, rows, note="": notes.append(note))
    options = {"epochs": 1, "batch_size": 64, "progress": False}
    result = fit(vae, rows, objective=objective, **options)
    assert notes == [f"{called} {-result.history.train_loss.item():.2f} nats per row"]

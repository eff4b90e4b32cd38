"""The story of a run, from data to verdict, as one HTML file that needs nothing else."""

from __future__ import annotations

__all__ = ["write_report"]

import base64
import json
from html import escape
from pathlib import Path
from typing import Any

from ..config import VAEConfig
from ..files import written_whole
from .metrics import words

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 46rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; } th { text-align: left; font-weight: 600; }
td, th { padding: .25rem .9rem .25rem 0; border-bottom: 1px solid #ddd; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; } pre { white-space: pre-wrap; font: 13px/1.5 ui-monospace, monospace; }
figcaption { color: #555; font-size: .9rem; }
figure { margin: 1rem 0; }
"""


def write_report(folder: Path) -> Path:
    """Write ``report.html`` into a run folder, from what the folder holds.

    Pictures are inside the file, and no script or style comes from elsewhere. The verdict is
    there if ``ppl-vae diagnose`` was run before.

    Parameters
    ----------
    folder
        A run folder, as ``ppl-vae fit`` writes it.

    Returns
    -------
    The path of the file.

    Raises
    ------
    OSError
        If a file of the run is missing, or the report cannot be written.
    """
    metrics = json.loads((folder / "metrics.json").read_text())
    settings = json.loads((folder / "config.json").read_text())
    try:
        page = _page(folder, metrics, settings)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"metrics.json or config.json in {str(folder)!r} is not as ppl-vae fit wrote it: "
            f"{type(error).__name__} {error}; fit again"
        ) from error
    path = folder / "report.html"
    with written_whole(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _page(folder: Path, metrics: dict[str, Any], settings: dict[str, Any]) -> str:
    sections = [
        _data(metrics, settings),
        _model(settings["vae"]),
        _fit(folder, metrics["fit"], settings),
        _quality(folder, metrics["test"]) if "test" in metrics else "",
        _latents(folder, settings["vae"]),
        _verdict(folder),
        f"<h2>Settings</h2><details><summary>config.json</summary>"
        f"<pre>{escape(json.dumps(settings, indent=2))}</pre></details>",
    ]
    title = f"A variational autoencoder of {escape(str(metrics['data']['name']))}"
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>"
        + "\n".join(sections)
        + "</body></html>\n"
    )


def _data(metrics: dict[str, Any], settings: dict[str, Any]) -> str:
    shape = escape(" x ".join(map(str, settings["vae"]["event_shape"])))
    bits = {
        "static": " Entries were drawn as bits once, with their intensities as probabilities.",
        "dynamic": " Entries were drawn as bits with their intensities as probabilities: afresh in "
        "each epoch for fitting, once for testing.",
        "threshold": " Entries were made bits at one half.",
    }.get(settings["binarize"], "")
    missing = " Some entries are missing." if settings["vae"]["missing"] else ""
    if settings.get("context"):
        names = escape(", ".join(str(coding["name"]) for coding in settings["context"]))
        missing += f" All distributions are conditional on {names}."
    tested = f" and {int(metrics['test']['rows']):,} to test on" if "test" in metrics else ""
    return (
        f"<h2>Data</h2><p>{escape(str(metrics['data']['source']))}: "
        f"{int(metrics['data']['train_rows']):,} rows to fit to{tested}, of {shape} entries each."
        f"{bits}{missing}</p>"
    )


def _model(settings: dict[str, Any]) -> str:
    config = VAEConfig(**settings)
    likelihood, prior, guide, network = (
        escape(_words(str(config.choice(part))))
        for part in ("likelihood", "prior", "guide", "network")
    )
    return (
        f"<h2>Model</h2><p>Each row is thought to come from {config.latent_dim} latents with the "
        f"prior <b>{prior}</b>, through the likelihood <b>{likelihood}</b> "
        f"({escape(config.reason)}). An encoder network computes for each row the parameters of a "
        f"distribution of the family <b>{guide}</b>, which approximates what is known of its "
        f"latents. Both networks are of the kind <b>{network}</b>.</p>"
    )


def _words(choice: str) -> str:
    """A choice with its name in words."""
    name, colon, options = choice.partition(":")
    return f"{name.replace('_', ' ')}{colon and ' with '}{options}"


def _fit(folder: Path, fit: dict[str, Any], settings: dict[str, Any]) -> str:
    options = settings["fit"]
    reason = str(fit["stop_reason"])
    outcome = escape(reason[:1].upper() + reason[1:])
    if not fit["finite"]:
        outcome = f"<strong>The fit broke off</strong>: {outcome}"
    before = ""
    if settings.get("continues"):
        before = f" It went on with the VAE in {escape(str(settings['continues']))}."
    return (
        f"<h2>Fit</h2><p>Stochastic variational inference with Adam at a learning rate of up to "
        f"{float(options['learning_rate']):g}, from seed {int(options['seed'])}.{before} "
        f"{outcome}; it took {float(fit['seconds']):.0f} s at "
        f"{float(fit['rows_per_second']):,.0f} rows per second. The weights are those of epoch "
        f"{int(fit['best_epoch'])}.</p>"
        + _picture(folder / "losses.png", "The ELBO by epoch, in nats per row; higher is better.")
    )


def _quality(folder: Path, test: dict[str, Any]) -> str:
    names = {
        "elbo": "ELBO",
        "log_evidence": f"log p(x), {int(test['num_samples'])} importance draws",
        "independent": "baseline: every entry by itself",
    }
    cells = {
        key: "".join(
            f"<td class='number'>{_number(test[key][column], digits)}</td>"
            for column, digits in (
                ("nats_per_row", 2),
                ("standard_error", 2),
                ("bits_per_dimension", 3),
            )
        )
        for key in names
    }
    rows = "".join(f"<tr><th>{name}</th>{cells[key]}</tr>" for key, name in names.items())
    found, alone = (test[key]["nats_per_row"] for key in ("log_evidence", "independent"))
    gain = float("nan") if found is None or alone is None else found - alone
    said = "".join(f"<p><strong>{escape(sentence)}</strong></p>" for sentence in words(test))
    return (
        "<h2>How well are new rows described?</h2><table><tr><th></th>"
        "<th class='number'>nats per row</th><th class='number'>standard error</th>"
        f"<th class='number'>bits per dimension</th></tr>{rows}</table>"
        f"{said}<p>On {int(test['rows']):,} rows that it was not fitted to, the VAE is "
        f"{abs(gain):.1f} nats per row {'better' if gain > 0 else 'worse'} than entries by "
        "themselves.</p>"
        + _picture(
            folder / "reconstructions.png",
            "Test rows, their reconstructions, and what the encoder is unsure of.",
        )
        + _picture(folder / "prior_draws.png", "Rows drawn from the model itself.")
    )


def _latents(folder: Path, config: dict[str, Any]) -> str:
    caption = "Test rows by the means of their approximate posteriors"
    if config["latent_dim"] > 2:
        caption += ", in the two directions in which these differ most"
    return f"<h2>Latents</h2>{_picture(folder / 'latents.png', caption + '.')}"


def _verdict(folder: Path) -> str:
    text = folder / "diagnosis.txt"
    if not text.exists():
        return "<h2>Verdict</h2><p>None yet: run <code>ppl-vae diagnose</code> on this run.</p>"
    return (
        f"<h2>Verdict</h2><pre>{escape(text.read_text())}</pre>"
        + _picture(
            folder / "diagnosis.png",
            "KL(q || p) of each row with its verdict, what the encoder loses and why, latents in "
            "use, and the ranks that fit worst.",
        )
        + _picture(
            folder / "calibration.png",
            "Ranks of simulated truths among draws from the encoder, less what they would be if it "
            "were right; gray is chance.",
        )
    )


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{float(value):.{digits}f}"


def _picture(path: Path, caption: str) -> str:
    # Only what a run wrote: a link could show any file of whoever opens a foreign run.
    if path.is_symlink() or not path.is_file():
        return f"<p>{escape(path.name)} is missing.</p>"
    content = path.read_bytes()
    if not content.startswith(b"\x89PNG"):
        return f"<p>{escape(path.name)} is no picture.</p>"
    data = base64.b64encode(content).decode()
    return (
        f"<figure><img alt='{escape(caption)}' src='data:image/png;base64,{data}'>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )

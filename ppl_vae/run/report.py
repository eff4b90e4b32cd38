"""The story of a run, from data to verdict, as one HTML file that needs nothing else."""

from __future__ import annotations

__all__ = ["PICTURES", "write_report"]

import base64
import json
import shlex
from html import escape
from pathlib import Path
from typing import Any

from ..config import VAEConfig
from ..files import written_whole
from ..pictures.svg import MAP_STYLE, map_html
from .alts import alternatives, stored
from .glossary import GLOSSARY
from .metrics import words
from .verdict import Verdict, read_verdict

_STYLE = (Path(__file__).parent / "report.css").read_text()
# Of the latent space, as ``ppl-vae pictures`` draws them.
PICTURES = ("latent_map.png", "traversals.png", "manifold.png", "interpolation.png")


def write_report(folder: Path) -> Path:
    """Write ``report.html`` into a run folder, from what the folder holds.

    Pictures are inside the file, and there is no script in it. The verdict is there if
    ``ppl-vae diagnose`` was run before, and what latents decode to after ``ppl-vae pictures``.

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
    said = alternatives(folder, settings["vae"]["event_shape"])
    verdict = _read(folder)
    sections = {
        "data": _data(metrics, settings),
        "model": _model(settings["vae"]),
        "fit": _fit(folder, metrics["fit"], settings, said),
        "quality": _quality(folder, metrics["test"], said) if "test" in metrics else "",
        "latents": _latents(folder, said),
        "verdict": _verdict(folder, verdict, said),
        "next": _next(folder, metrics, verdict),
        "glossary": _glossary(),
        "settings": "<h2>Settings</h2><details><summary>config.json</summary>"
        f"<pre>{escape(json.dumps(settings, indent=2))}</pre></details>",
    }
    title = f"A variational autoencoder of {escape(str(metrics['data']['name']))}"
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{title}</title><style>{_STYLE}{MAP_STYLE}</style></head><body><main>"
        f"<h1>{title}</h1>{_brief(metrics, verdict)}\n"
        + "\n".join(
            f"<section id='{name}'>{section}</section>" for name, section in sections.items()
        )
        + "</main></body></html>\n"
    )


def _brief(metrics: dict[str, Any], verdict: Verdict | None) -> str:
    """What a reader of one paragraph should know."""
    said = []
    evidence = metrics.get("test", {}).get("log_evidence", {}).get("nats_per_row")
    if evidence is not None:
        said.append(
            f"New rows have a log p(x) of <strong>{float(evidence):.2f} nats</strong> on average."
        )
    if verdict is None:
        said.append("Whether their posteriors can be believed was not asked yet.")
    elif verdict.believed is not None:
        said.append(
            f"The posteriors of <strong>{verdict.believed}&nbsp;%</strong> of them can be used: "
            "<a href='#verdict'>how</a>."
        )
    return (
        f"<p class='brief'>{' '.join(said)} <a href='#next'>What to do next</a>, and "
        "<a href='#glossary'>what the words mean</a>.</p>"
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


def _fit(folder: Path, fit: dict[str, Any], settings: dict[str, Any], said: dict[str, str]) -> str:
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
        + _picture(
            folder / "losses.png", "The ELBO by epoch, in nats per row; higher is better.", said
        )
    )


def _quality(folder: Path, test: dict[str, Any], alt: dict[str, str]) -> str:
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
    rows = "".join(
        f"<tr><th scope='row'>{name}</th>{cells[key]}</tr>" for key, name in names.items()
    )
    found, alone = (test[key]["nats_per_row"] for key in ("log_evidence", "independent"))
    gain = float("nan") if found is None or alone is None else found - alone
    said = "".join(f"<p><strong>{escape(sentence)}</strong></p>" for sentence in words(test))
    return (
        "<h2>How well are new rows described?</h2><table><tr><td></td>"
        "<th scope='col' class='number'>nats per row</th>"
        "<th scope='col' class='number'>standard error</th>"
        f"<th scope='col' class='number'>bits per dimension</th></tr>{rows}</table>"
        f"{said}<p>On {int(test['rows']):,} rows that it was not fitted to, the VAE is "
        f"{abs(gain):.1f} nats per row {'better' if gain > 0 else 'worse'} than entries by "
        "themselves.</p>"
        + _picture(
            folder / "reconstructions.png",
            "Test rows, their reconstructions, and what the encoder is unsure of.",
            alt,
        )
        + _picture(folder / "prior_draws.png", "Rows drawn from the model itself.", alt)
    )


def _latents(folder: Path, said: dict[str, str]) -> str:
    parts = ["<h2>Latents</h2>"]
    points = stored(folder / "map.nc")
    try:
        drawn = (
            None if points is None else map_html(points, stored(folder / "diagnosis.nc", "rows"))
        )
    except (KeyError, TypeError, ValueError):  # files of another version
        drawn = None
    if drawn is None:
        parts.append(_picture(folder / "latents.png", "Test rows in the space of latents.", said))
    else:
        parts.append(
            f"<figure>{drawn}<figcaption>Test rows by the means of their approximate posteriors; "
            "the first 1,000. Rest the pointer on one to see which it is.</figcaption></figure>"
        )
    captions = (
        "Each row's own posterior, and how sure it is.",
        "What each latent does by itself, the most effective first.",
        "What a grid of two latents decodes to.",
        "From one row to another.",
    )
    found = [
        _picture(folder / name, caption, said)
        for name, caption in zip(PICTURES, captions, strict=True)
        if (folder / name).exists()
    ]
    if not found:
        parts.append(
            f"<p>What latents decode to is drawn by <code>{_command('pictures', folder)}</code>; "
            "then write the report again.</p>"
        )
    return "".join(parts + found)


def _read(folder: Path) -> Verdict | None:
    text = folder / "diagnosis.txt"
    if text.is_symlink() or not text.is_file():
        return None
    return read_verdict(text.read_text())


def _verdict(folder: Path, verdict: Verdict | None, said: dict[str, str]) -> str:
    if verdict is None:
        command = _command("diagnose", folder)
        return f"<h2>Verdict</h2><p>None yet: run <code>{command}</code>.</p>"
    return (
        f"<h2>Verdict</h2>{verdict.html()}"
        + _picture(
            folder / "diagnosis.png",
            "KL(q || p) of each row, what the encoder loses and why, latents in use, and the ranks "
            "that fit worst.",
            said,
        )
        + _picture(
            folder / "calibration.png",
            "Ranks of simulated truths among draws from the encoder, less what they would be if it "
            "were right; gray is chance.",
            said,
        )
    )


def _next(folder: Path, metrics: dict[str, Any], verdict: Verdict | None) -> str:
    """What to do, the most urgent first."""
    steps = []
    problems = words(metrics["test"]) if "test" in metrics else []
    if problems:
        steps.append(f"Mend the fit first: {escape(problems[0])}")
    if not metrics["fit"]["finite"]:
        steps.append("Fit again with a lower <code>--learning-rate</code>: the fit broke off.")
    if verdict is None:
        steps.append(
            f"Ask which rows can be believed: <code>{_command('diagnose', folder)}</code>."
        )
    else:
        steps += [
            f"Fit again: {escape(what)}. That wins {escape(nats)} nats per row."
            for nats, what in verdict.cures
        ]
        names = {name for name, *_ in verdict.counts}
        if "reweighted" in names:
            steps.append(
                "Use the draws of reweighted rows with their weights: <code>encode</code> writes "
                "them beside the draws, as <code>log_weight</code>."
            )
        if "refined" in names:
            steps.append(
                "Refine the rows that need it, in Python: "
                "<code>refine(vae, x, method='natural_gradient')</code>."
            )
        if names & {"not", "not tried"}:
            steps.append(
                "Leave out the rows whose posteriors cannot be used, or draw them by "
                "<code>refine(vae, x, method='nuts')</code>."
            )
    steps += [
        f"Look at single rows and move through the latents: <code>{_command('explore', folder)}"
        "</code>.",
        f"Draw the latents of rows of your own: <code>{_command('encode', folder)} FILE</code>, or "
        f"new rows from the model: <code>{_command('sample', folder)}</code>.",
    ]
    return f"<h2>What to do next</h2><ol>{''.join(f'<li>{step}</li>' for step in steps)}</ol>"


def _glossary() -> str:
    items = "".join(f"<dt>{escape(w)}</dt><dd>{escape(said)}</dd>" for w, said in GLOSSARY.items())
    return f"<h2>What the words mean</h2><dl>{items}</dl>"


def _command(name: str, folder: Path) -> str:
    return escape(f"ppl-vae {name} {shlex.quote(str(folder))}")


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{float(value):.{digits}f}"


def _picture(path: Path, caption: str, said: dict[str, str]) -> str:
    # Only what a run wrote: a link could show any file of whoever opens a foreign run.
    if path.is_symlink() or not path.is_file():
        return f"<p>{escape(path.name)} is missing.</p>"
    content = path.read_bytes()
    if not content.startswith(b"\x89PNG"):
        return f"<p>{escape(path.name)} is no picture.</p>"
    data = base64.b64encode(content).decode()
    return (
        f"<figure><img alt='{escape(said[path.name])}' src='data:image/png;base64,{data}'>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )

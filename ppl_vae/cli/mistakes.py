"""What a mistyped command probably meant, and errors of Python in terms of options."""

from __future__ import annotations

__all__ = ["in_options", "meant", "options_of", "said"]

import difflib
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

# What other programs, and people, call an option of ours.
_ALSO_CALLED = {
    "--out": ("output", "out-dir", "output-dir", "save", "o"),
    "--epochs": ("num-epochs", "n-epochs", "max-epochs", "iterations", "iter", "steps", "passes"),
    "--learning-rate": ("lr", "rate", "step-size", "eta", "alpha"),
    "--batch-size": ("bs", "batch", "minibatch", "minibatch-size"),
    "--latent-dim": ("latents", "z", "z-dim", "zdim", "latent-size", "num-latents", "n-latents"),
    "--hidden": ("layers", "units", "width", "hidden-dim", "hidden-size", "hidden-layers"),
    "--network": ("architecture", "arch", "model", "net"),
    "--likelihood": ("decoder", "distribution", "dist", "observation-model", "family"),
    "--guide": ("encoder", "posterior", "variational-family", "q"),
    "--objective": ("loss", "elbo", "bound", "beta"),
    "--optimizer": ("optim", "solver"),
    "--schedule": ("scheduler", "lr-schedule"),
    "--label": ("labels", "target", "y", "class", "outcome"),
    "--drop": ("exclude", "ignore", "skip", "remove", "without", "id"),
    "--context": ("covariate", "covariates", "condition", "conditional", "given", "batch-key"),
    "--column": ("columns", "dtype", "type", "kind"),
    "--missing": ("na", "nan", "na-values", "null"),
    "--draws": ("samples", "num-samples", "n-samples", "num-draws", "particles"),
    "--num-samples": ("samples", "draws", "n", "size", "rows"),
    "--device": ("gpu", "cuda", "accelerator"),
    "--precision": ("dtype", "amp", "bf16", "fp16", "tf32"),
    "--seed": ("random-state", "random-seed", "rng"),
    "--log": ("logger", "tensorboard", "wandb", "mlflow", "csv"),
    "--patience": ("early-stopping", "early-stop"),
    "--validation": ("val", "val-fraction", "validation-split", "holdout"),
    "--data-root": ("data-dir", "root", "datasets"),
    "--preset": ("published", "recipe"),
    "--resume": ("continue", "restart"),
    "--force": ("overwrite", "f", "yes"),
    "--quiet": ("silent", "q"),
    "--dry-run": ("plan", "check", "n"),
    "--config": ("configuration", "options", "toml", "yaml", "c"),
}
# Arguments of functions whose option has another name.
_OTHERWISE = {
    "num_samples": "--draws",
    "root": "--data-root",
    "covariates": "--context",
    "method": "--binarize",
}


def options_of(command: Any) -> dict[str, Any]:
    """The options of a command by their first long name."""
    found: dict[str, Any] = {}
    for parameter in command.params:
        long = [name for name in parameter.opts if name.startswith("--")]
        found |= dict.fromkeys(long[:1], parameter)
    return found


def meant(option: str, known: Sequence[str]) -> list[str]:
    """The options that a text probably stood for, best first.

    Examples
    --------
    >>> known = ["--learning-rate", "--label", "--layer"]
    >>> meant("--lr", known), meant("--lable", known), meant("--rate", known)
    (['--learning-rate'], ['--label'], ['--learning-rate'])
    """
    bare = option.lstrip("-").replace("_", "-").lower()
    exact = [name for name in known if name == f"--{bare}"]
    called = [name for name in known if bare in _ALSO_CALLED.get(name, ())]
    close = difflib.get_close_matches(f"--{bare}", known, n=2, cutoff=0.75)
    word = [name for name in known if len(bare) > 2 and bare in name.lstrip("-").split("-")]
    return list(dict.fromkeys([*exact, *called, *close, *word]))[:2]


def said(error: Any, commands: Iterable[tuple[str, Any]]) -> str:
    """What the parser of the command line said, with what was probably meant."""
    message = str(error.format_message()).split(" (Possible options")[0].rstrip(".")
    context = getattr(error, "ctx", None)
    if context is None:
        return message
    way = f"{context.command_path} --help"
    option = getattr(error, "option_name", None)
    if option is None:
        return f"{message}; {way} shows how" if "Missing" in message else message
    if close := meant(option, list(options_of(context.command))):
        return f"{message}; did you mean {' or '.join(close)}?"
    having = [name for name, command in commands if option in options_of(command)]
    if having:
        return f"{message}; it is one of {', '.join(having)}"
    return f"{message}; {way} lists them"


def in_options(message: str, known: Iterable[str]) -> str:
    """An error of a function, with options in place of the arguments that they stand for.

    Examples
    --------
    >>> in_options("epochs is 0; pass at least 1", ["--epochs"])
    '--epochs is 0; pass at least 1'
    >>> in_options("use network='mlp', or drop=[...] (--drop)", ["--network", "--drop"])
    'use --network mlp, or --drop NAME'
    """
    options = {name.removeprefix("--").replace("-", "_"): name for name in known}
    options |= {name: option for name, option in _OTHERWISE.items() if option in options.values()}
    if not options or "has no option" in message:  # which lists those of a part
        return message
    names = "|".join(sorted(options, key=len, reverse=True))

    def passed(found: re.Match[str]) -> str:
        name, value, option, rest = found.groups()
        # As in unseen='missing' (--unseen missing).
        return f"{option}{rest}" if rest else _given(options[name], value)

    message = re.sub(
        rf"(^|; |: )({names})(?= (?:is|has|are) )",
        lambda found: f"{found[1]}{options[found[2]]}",
        message,
    )
    message = re.sub(
        rf"(?<![\w:,'\"=-])(?<!--context )({names})=({_VALUE})(?: \((--[\w-]+)( [^)]*)?\))?",
        passed,
        message,
    )
    return re.sub(
        "^x (has|holds) ", lambda f: f"the data {'have' if f[1] == 'has' else 'hold'} ", message
    )


_VALUE = r"\{[^}]*\}|\[[^\]]*\]|\([^)]*\)|'[^']*'|[\w.+-]+"


def _given(option: str, value: str) -> str:
    """An option with a value that is written as in Python."""
    if value in ("True", "False"):
        return option if value == "True" else option.replace("--", "--no-", 1)
    if value == "[...]":
        return f"{option} NAME"
    if value.startswith("{"):
        return f"{option} {re.sub(r': ', '=', value).translate(_BARE)}"
    return f"{option} {shlex.quote(value.replace(', ', ',').translate(_BARE))}"


_BARE = str.maketrans("", "", "'{}[]()")

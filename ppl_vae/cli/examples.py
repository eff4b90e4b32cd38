"""Examples of each command, which help ends with, and the tests run through the parser."""

from __future__ import annotations

__all__ = ["EXAMPLES", "epilog"]

from collections.abc import Mapping

# Of each command what is typed, and what that does.
EXAMPLES: Mapping[str, Mapping[str, str]] = {
    "fit": {
        "ppl-vae fit": "handwritten digits that come with scikit-learn, in half a minute",
        "ppl-vae fit tumors.csv --label target": "a table, one column of which is not modeled",
        "ppl-vae fit tumors.csv --drop id --column grade=ordinal --dry-run": "what would be fitted",
        "ppl-vae fit tumors.csv --label target --dry-run --quiet > run.toml": "the same as a file",
        "ppl-vae fit --config run.toml --latent-dim 4": "a fit by a file, but for one option",
        "ppl-vae fit next_month.csv --continue runs/tumors": "a finished run's VAE, fitted further",
        "ppl-vae fit mnist --data-root DIR --binarize dynamic": "images, from torchvision",
        "ppl-vae fit digits --guide full_rank --prior vamp:components=50": "a richer posterior",
    },
    "reproduce": {
        "ppl-vae reproduce": "name the published VAEs",
        "ppl-vae reproduce tf-cvae --data-root DIR": "fit one to MNIST, beside its source's figure",
    },
    "diagnose": {
        "ppl-vae diagnose runs/tumors": "which rows' posteriors can be used, and what would help",
        "ppl-vae diagnose runs/tumors --json": "the same as numbers",
    },
    "evaluate": {"ppl-vae evaluate runs/tumors --draws 5000": "log p(x) again, with more draws"},
    "sample": {
        "ppl-vae sample runs/tumors --num-samples 1000": "rows from the model, as arrays",
        "ppl-vae sample runs/digits --out drawn.png": "the same as a picture",
        "ppl-vae sample runs/conditional --context label=3": "rows given a covariate",
    },
    "encode": {
        "ppl-vae encode runs/tumors next_month.csv --label target": "posteriors of other rows",
        "ppl-vae encode runs/tumors rows.parquet --out z.zarr": "more rows than fit into memory",
    },
    "impute": {
        "ppl-vae impute runs/tumors gaps.csv": "each missing cell by its best single value",
        "ppl-vae impute runs/tumors gaps.csv --fill draw --seed 1 --out one.csv": "by a draw",
    },
    "watch": {"ppl-vae watch runs/tumors next_month.csv --label target": "are new rows as before?"},
    "pictures": {"ppl-vae pictures runs/digits --which 0,3": "by the first and the fourth latent"},
    "compare": {"ppl-vae compare runs/a runs/b": "which fits new rows better, and do they agree?"},
    "explore": {"ppl-vae explore runs/digits": "a page to click rows and move through latents"},
    "report": {
        "ppl-vae report runs/tumors": "from data to verdict, in one page that can be mailed"
    },
    "list": {
        "ppl-vae list": "all",
        "ppl-vae list likelihoods": "distributions of the data given the latents",
    },
}


def epilog(command: str) -> str:
    """What the help of a command ends with."""
    lines = [f"{typed}\n    {what}" for typed, what in EXAMPLES[command].items()]
    return "\n".join(["Examples:\n", *lines])

"""How the documentation is built: ``python -m sphinx -W docs OUT``.

The build needs no network. ``PPL_VAE_INTERSPHINX=1`` reads the inventories of Pyro, PyTorch, ArviZ
and xarray as well, so that their names become links.
"""

from __future__ import annotations

import inspect
import os
import re
import shutil
from pathlib import Path
from typing import Any

import typer
from docutils import nodes
from latex2mathml.converter import convert
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util.nodes import make_refnode
from typer.main import get_command

import ppl_vae
import ppl_vae.cli
from ppl_vae.cli.examples import EXAMPLES

# Notebooks are pages too, and Sphinx sees what is in its own folder alone.
_HERE = Path(__file__).parent
_NOTEBOOKS = _HERE / "notebooks"
_NOTEBOOKS.mkdir(exist_ok=True)
for _path in (_HERE.parent / "notebooks").glob("*.ipynb"):
    shutil.copy2(_path, _NOTEBOOKS)

project = "ppl_vae"
author = "the authors of ppl_vae"
copyright = author
version = release = ppl_vae.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns: list[str] = []
nitpicky = True
suppress_warnings = ["mystnb.unknown_mime_type"]

html_theme = "pydata_sphinx_theme"
html_title = "ppl_vae"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_math_renderer = "mathml"
html_theme_options = {
    "icon_links": [
        {
            "name": "GitHub",
            "url": "https://github.com/ppl-vae/ppl_vae",
            "icon": "fa-brands fa-github",
        }
    ],
    "navbar_align": "left",
    "header_links_before_dropdown": 9,
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
# A page with nothing beside it is not given an empty column.
_ALONE = (
    "tutorial",
    "questions",
    "believing",
    "extending",
    "benchmarks",
    "commands",
    "parts",
    "mnist",
)
html_sidebars: dict[str, list[str]] = {name: [] for name in _ALONE}

# Notebooks are shown as they were run: tests/test_notebooks.py runs them.
nb_execution_mode = "off"
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # they hold no widgets, and scripts come from afar
myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Attributes", "params_style")]  # several may share a line
autosummary_generate = False
copybutton_exclude = ".linenos, .gp, .go"

_ELSEWHERE = {
    "python": "https://docs.python.org/3",
    "torch": "https://docs.pytorch.org/docs/stable",
    "pyro": "https://docs.pyro.ai/en/stable",
    "xarray": "https://docs.xarray.dev/en/stable",
    "arviz": "https://python.arviz.org/en/stable",
    "arviz_base": "https://python.arviz.org/projects/base/en/stable",
    "numpy": "https://numpy.org/doc/stable",
    "zuko": "https://zuko.readthedocs.io/stable",
}
intersphinx_mapping = (
    {name: (url, None) for name, url in _ELSEWHERE.items()}
    if os.environ.get("PPL_VAE_INTERSPHINX")
    else {}
)

# Names of other packages resolve only where their inventories were read.
nitpick_ignore = [
    ("py:class", "Stages"),  # of diagnose in a store, for this package alone
    ("py:class", "Schedule"),  # Callable[[float], float]
    ("py:class", "ppl_vae.workflow.draws.gaussian.Gaussian"),
    ("py:class", "ppl_vae.workflow.draws.latents.Coordinates"),
]
nitpick_ignore_regex = [
    (
        r"py:.*",
        r"(torch|np|numpy|xr|xarray|pd|pandas|pyro|matplotlib|lightning_fabric|zuko|pydantic"
        r"|annotated_types|collections|typing|os|pathlib)\..*",
    )
]
# What signatures call by its last name.
_LONG = {
    "Distribution": "torch.distributions.distribution.Distribution",
    "ELBO": "pyro.infer.elbo.ELBO",
    "Fabric": "lightning_fabric.Fabric",
    "Figure": "matplotlib.figure.Figure",
    "Module": "torch.nn.Module",
    "Tensor": "torch.Tensor",
}


def lengthen(app: Sphinx, doctree: nodes.document) -> None:
    """Names of other packages in full, before they are looked up."""
    for node in doctree.findall(pending_xref):
        node["reftarget"] = _LONG.get(node.get("reftarget"), node.get("reftarget"))


def missing_reference(
    app: Sphinx, env: Any, node: nodes.Element, contnode: nodes.Element
) -> nodes.Element | None:
    """A name of ours by whatever module it is called: ``ppl_vae.vae.VAE`` is ``ppl_vae.VAE``."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    documented = env.domains["py"].objects
    parts = target.split(".")
    if parts[0] == "ppl_vae":
        ends = [i for i, part in enumerate(parts) if part in ppl_vae.__all__]
        names = [".".join(["ppl_vae", *parts[i:]]) for i in ends]
    else:
        names = [name for name in documented if name.endswith(f".{target}")]
    found = [documented[name] for name in names if name in documented]
    if len(found) != 1:
        return None
    return make_refnode(
        app.builder, node["refdoc"], found[0].docname, found[0].node_id, contnode, target
    )


def escape_stars(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """A shape in plain text, (row, *event), opens no emphasis."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            parts = re.split(r"(``.*?``)", line)
            parts[::2] = [re.sub(r"(?<=[ (])\*(?=event\b)", r"\\*", part) for part in parts[::2]]
            lines[i] = "".join(parts)


def list_commands(app: Sphinx, docname: str, source: list[str]) -> None:
    """The page of commands ends with what the program itself says of its options."""
    if docname != "commands":
        return
    program: Any = get_command(ppl_vae.cli.app)
    for name, command in program.commands.items():
        with typer.Context(command, info_name=f"ppl-vae {name}") as context:
            source[0] += f"\n## `ppl-vae {name}`\n\n{inspect.cleandoc(command.help)}\n\n"
            usage = " ".join(["$ ppl-vae", name, *command.collect_usage_pieces(context)])
            examples = [f"$ {typed}  # {what}" for typed, what in EXAMPLES[name].items()]
            source[0] += "\n".join(["```console", usage, *examples, "```", ""])
            groups: dict[str, list[str]] = {}
            for parameter in command.get_params(context):
                record = parameter.get_help_record(context)
                group = getattr(parameter, "rich_help_panel", None) or "Options"
                if parameter.param_type_name == "argument":
                    group = "Arguments"
                if record is not None:
                    groups.setdefault(group, []).append(f"* `{record[0]}`: {record[1]}")
            for group, lines in groups.items():
                source[0] += "\n".join(["", f"**{group}**", "", *lines, ""])


def formula(source: str, display: str) -> str:
    """MathML, which browsers and screen readers know without a script."""
    # Browsers put no space between the name of a function and what it is of.
    return convert(re.sub(r"\\log(?=\s|\\)", r"\\log\\,", source), display=display)


def math(self: Any, node: nodes.Element) -> None:
    """A formula in a line of text."""
    self.body.append(formula(node.astext(), "inline"))
    raise nodes.SkipNode


def displayed_math(self: Any, node: nodes.Element) -> None:
    """A formula of its own line, which a narrow window scrolls."""
    self.body.append('<div class="formula" tabindex="0">')
    self.body.append(formula(node.astext(), "block"))
    self.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what Sphinx does not bring."""
    app.add_html_math_renderer("mathml", (math, None), (displayed_math, None))
    app.connect("autodoc-process-docstring", escape_stars, priority=100)  # before napoleon
    app.connect("source-read", list_commands)
    app.connect("doctree-read", lengthen)
    app.connect("missing-reference", missing_reference)
    return {"parallel_read_safe": True}

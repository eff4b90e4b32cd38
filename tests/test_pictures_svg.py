"""The map that needs no script: that rows are where they are, and that nothing is a tag."""

import re

import numpy as np
import pytest
import xarray as xr

from ppl_vae.pictures.colors import VERDICT_COLORS
from ppl_vae.pictures.svg import MAP_STYLE, map_html


def points(size=30, labels=True, seed=0):
    rng = np.random.default_rng(seed)
    found = xr.Dataset(
        {
            "x": ("row", rng.normal(size=size), {"long_name": "mean of latent 0"}),
            "y": ("row", 3 * rng.normal(size=size), {"long_name": "mean of <latent 1>"}),
        }
    )
    if labels:
        found["label"] = "row", np.array([str(i % 10) for i in range(size)])
    return found


def judged(size=30):
    names = list(VERDICT_COLORS)
    return xr.Dataset(
        {
            "verdict": ("row", np.array([names[i % 4] for i in range(size)])),
            "pareto_k": ("row", np.linspace(-0.2, 1.4, size)),
            "log_evidence": ("row", np.r_[np.nan, np.linspace(-90, -70, size - 1)]),
        }
    )


def drawn(page):
    """Where each row is, and its classes."""
    found = re.findall(r"<use href='#m\d' x='([-\d.]+)' y='([-\d.]+)' class='([^']*)'>", page)
    return np.array([(float(x), float(y)) for x, y, _ in found]), [c.split() for *_, c in found]


def test_one_unit_is_as_long_on_both_axes_and_upwards_is_up():
    data = points()
    at, _ = drawn(map_html(data))
    xy = np.column_stack([data.x.values, data.y.values])
    there, here = (np.linalg.norm(a[:, None] - a, axis=-1) for a in (xy, at))
    scale = here[0, 1] / there[0, 1]
    np.testing.assert_allclose(here, scale * there, atol=0.2)  # tenths are written
    assert (at[np.argmax(xy[:, 1]), 1] == at[:, 1].min()).all()


def test_each_row_has_a_class_for_each_coloring():
    _, classes = drawn(map_html(points(), judged()))
    assert len(classes) == 30
    assert classes[0] == ["label0", "verdict0", "khat0", "evidencex"]
    assert classes[29] == ["label9", "verdict1", "khat4", "evidence4"]
    for name in {name for row in classes for name in row}:
        assert f".{name}{{" in MAP_STYLE


def test_ten_labels_have_ten_signs():
    page = map_html(points())
    legend = page[page.index("legend-label") :]
    signs = re.findall(r"href='#(m\d)' class='(label\d)'", legend)
    assert len(set(signs)) == 10


def test_what_is_to_be_seen_is_said():
    page = map_html(points(), judged())
    said = re.search(r"<title id='map-said'>(.*?)</title>", page).group(1)
    assert "30 rows" in said
    assert "0 at " in said
    assert "8 as it is" in said
    assert "<title>row 3, label 3: not, k-hat" in page


def test_text_is_text():
    data = points()
    data["label"] = "row", np.array(["<script>", "'&"] * 15)
    page = map_html(data)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "mean of &lt;latent 1&gt;" in page


@pytest.mark.parametrize("labels", [True, False])
def test_rows_that_are_nowhere_are_left_out(labels):
    data = points(labels=labels)
    data["x"][4] = np.nan
    assert len(drawn(map_html(data))[0]) == 29
    data["x"][:] = np.nan
    assert len(drawn(map_html(data))[0]) == 0


def test_a_diagnosis_of_fewer_rows_is_of_others():
    assert "by-verdict" not in map_html(points(), judged(10))
    assert len(drawn(map_html(points(1200), max_rows=1000))[0]) == 1000

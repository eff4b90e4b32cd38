"""The explorer: what it says of rows, and that its page follows what a reader chooses."""

import json
import socket
import sys

import numpy as np
import pytest
import torch

from ppl_vae import VAE, VAEConfig, load_data, log_evidence
from ppl_vae.data import ColumnKind
from ppl_vae.explorer import Explored
from ppl_vae.explorer.serving import free_port
from ppl_vae.explorer.shown import cells, png_link

ROWS = 40


@pytest.fixture(scope="module")
def seen():
    data = load_data("digits", "test")
    vae = VAE.from_config(VAEConfig.for_data(data.x, latent_dim=3, hidden=(16,)), seed=0)
    return Explored(vae, data, data.x, max_rows=ROWS, progress=False)


def test_rows_are_where_the_encoder_puts_them(seen):
    with torch.no_grad():
        means = seen.vae.encoder(seen.data.x[:ROWS]).mean.numpy()
    np.testing.assert_allclose(seen.means, means, atol=1e-6)
    assert all(seen.nearest(*seen.points[row]) == row for row in (0, 17, 39))
    away = np.linalg.norm((means - means[5]) / means.std(0), axis=1)
    assert seen.neighbors(5)[0] in np.argsort(away)[1:4]


def test_what_is_decoded_is_what_the_decoder_says(seen):
    z = np.array([0.5, -1.0, 2.0], dtype=np.float32)
    with torch.no_grad():
        expected = seen.vae.decoder(torch.as_tensor(z)[None]).mean[0].numpy()
    np.testing.assert_allclose(seen.decode(z, row=3), expected, atol=1e-6)


def test_weighted_draws_are_nearer_to_the_posterior(oracle):
    """Of an encoder whose means are half an exact standard deviation off."""
    from ppl_vae.data.dataset import Dataset

    x, vae = oracle.rows(20), oracle.vae()
    mean, sd = (part.numpy() for part in oracle.posterior(x))
    with torch.no_grad():
        vae.encoder.loc_head.bias.add_(0.5 * torch.as_tensor(sd))
    shifted = Explored(vae, Dataset("x", x, None, None, "oracle"), x, progress=False)
    found = [shifted.posterior(row) for row in range(5)]
    raw = np.array([one.mean for one in found]) - mean[:5]
    weighted = np.array([one.weighted_mean for one in found]) - mean[:5]
    np.testing.assert_allclose(raw / sd, 0.5, atol=0.2)  # 4.5 standard errors of 500 draws
    assert np.abs(weighted / sd).mean() < 0.2
    assert all(50 < one.effective < 500 for one in found)
    assert found[0].reconstruction.shape == found[0].spread.shape == (8,)


def test_the_worst_row_is_first(seen):
    order = ["not", "not tried", "refined", "reweighted", "as it is"]
    ranks = [order.index(seen.verdict[row]) for row in seen.worst]
    assert ranks == sorted(ranks)
    of_one = [
        seen.kl[row] for row in seen.worst if seen.verdict[row] == seen.verdict[seen.worst[0]]
    ]
    assert of_one == sorted(of_one, reverse=True)


def test_a_verdict_is_said_with_its_numbers(seen):
    words = " ".join(seen.verdict_in_words(7))
    assert words.count(f"k-hat is {seen.khat[7]:.2f}") == 1
    assert f"log p(x) is {seen.evidence[7]:.2f} nats" in words
    evidence = log_evidence(seen.vae, seen.data.x[:ROWS], num_samples=500, progress=False)
    np.testing.assert_allclose(seen.evidence, evidence.log_evidence, atol=1e-6)


def test_a_diagnosis_is_believed_before_own_draws(seen):
    import xarray as xr

    names = {"verdict": "refined", "reason": "as told", "pareto_k": 0.9}
    names |= {"pareto_k_threshold": 0.6, "kl": 1.5, "log_evidence": -30.0}
    judged = xr.Dataset({name: ("row", np.full(50, value)) for name, value in names.items()})
    told = Explored(seen.vae, seen.data, seen.data.x, judged=judged, max_rows=ROWS, progress=False)
    assert told.diagnosed
    assert set(told.verdict) == {"refined"}
    words = told.verdict_in_words(0)
    assert "Why: as told." in words
    assert any("so that no averages" in sentence for sentence in words)


def test_cells_are_words():
    kinds = (ColumnKind("kind", "categorical", ("a", "b", "c")), ColumnKind("n", "count"))
    assert cells(np.array([2.0, 12.0]), kinds) == ["c", "12"]
    assert cells(np.array([1e-7, np.nan]), None) == ["1e-07", "missing"]


@pytest.mark.parametrize("shape", [(5, 7), (1, 5, 7), (3, 5, 7), (2, 5, 7)])
def test_images_of_any_number_of_channels(shape):
    import base64
    import io

    from PIL import Image

    link = png_link(np.linspace(-1, 1, int(np.prod(shape))).reshape(shape), (0.0, 1.0))
    image = Image.open(io.BytesIO(base64.b64decode(link.split(",")[1])))
    assert image.size == (7, 5)
    assert image.mode == ("RGB" if shape[0] == 3 else "L")


class TestPage:
    """The page without a browser: what it sends to one."""

    @pytest.fixture
    def session(self, seen):
        pytest.importorskip("panel", reason="needs: pip install -e '.[explore]'")
        from ppl_vae.explorer.page import _Session

        return _Session(seen, "digits: rows and latents")

    def test_it_opens_with_the_worst_row(self, session, seen):
        shown = json.loads(session.page.shown)
        facts = json.loads(session.page.facts)
        assert shown["row"] == seen.worst[0] == facts["worst"][0]["row"]
        assert shown["words"] == seen.verdict_in_words(shown["row"])
        assert [near["row"] for near in shown["neighbors"]] == seen.neighbors(shown["row"])
        assert facts["rows"] == ROWS
        assert len(facts["legends"]["label"]["items"]) == 10

    def test_a_click_chooses_the_nearest_row(self, session, seen):
        from bokeh.events import Tap

        x, y = seen.points[11]
        event = Tap(session.map.figure, x=float(x) + 1e-4, y=float(y))
        session.map.figure._trigger_event(event)
        assert json.loads(session.page.shown)["row"] == 11

    def test_a_slider_changes_what_is_decoded(self, session, seen):
        session.page.row = 5
        before = json.loads(session.page.decoded)["image"]
        latent = int(seen.latents[0])
        session.page.asked = json.dumps({"z": {str(latent): 2.5}, "number": 1})
        after = json.loads(session.page.decoded)
        z = seen.means[5].copy()
        z[latent] = 2.5
        assert after["number"] == 1
        assert after["image"] == png_link(seen.decode(z, row=5), session.limits) != before
        moved = session.map._moved.data
        np.testing.assert_allclose([moved["x"][0], moved["y"][0]], seen.plane.at(z))

    def test_zooming_keeps_one_unit_as_long_on_both_axes(self, session, seen):
        figure, (x, y) = session.map.figure, seen.points[3]
        session.page.row = 3
        x_range, y_range = figure.x_range, figure.y_range
        wide = (x_range.start, x_range.end)
        assert wide[0] < seen.points[:, 0].min() < seen.points[:, 0].max() < wide[1]
        ratio = (x_range.end - x_range.start) / (y_range.end - y_range.start)
        session._told({"zoom": 0.5})
        assert x_range.end - x_range.start == pytest.approx((wide[1] - wide[0]) / 2)
        assert (x_range.start + x_range.end) / 2 == pytest.approx(x, abs=1e-6)
        assert (y_range.start + y_range.end) / 2 == pytest.approx(y, abs=1e-6)
        assert (x_range.end - x_range.start) / (y_range.end - y_range.start) == pytest.approx(ratio)
        session._told({"zoom": 0})
        assert (x_range.start, x_range.end) == wide

    def test_colors_follow_what_is_chosen(self, session, seen):
        session.page.color = "verdict"
        coloring = session.map.colorings["verdict"]
        assert session.map._rows.data["color"] == [coloring.light[i] for i in coloring.classes]
        session.page.dark = True
        assert session.map._rows.data["color"] == [coloring.dark[i] for i in coloring.classes]
        assert session.map.figure.background_fill_color != "#ffffff"

    def test_a_table_is_shown_by_its_names(self):
        pytest.importorskip("panel", reason="needs: pip install -e '.[explore]'")
        from ppl_vae.data.dataset import Dataset
        from ppl_vae.explorer.page import _Session

        x = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
        data = Dataset("cells", x, None, ("height", "<b>", "width"), "a table")
        vae = VAE.from_config(VAEConfig.for_data(x, latent_dim=2, hidden=(8,)))
        session = _Session(Explored(vae, data, x, progress=False), "cells")
        lines = json.loads(session.page.shown)["table"]
        assert [line["name"] for line in lines] == ["height", "<b>", "width"]
        row = json.loads(session.page.shown)["row"]
        assert lines[0]["row"] == f"{float(x[row, 0]):.4g}"
        latent = json.loads(session.page.facts)["latents"][0]["latent"]
        session.page.asked = json.dumps({"z": {str(latent): 3.0}, "number": 1})
        assert json.loads(session.page.decoded)["table"] != lines


def test_the_page_is_for_this_machine_and_a_free_port():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=f"--port is {port}, which cannot be served on"):
            free_port(port)
    assert free_port() > 1024


def test_without_panel_the_command_says_what_to_install(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "panel", None)
    code, _, error = command("explore", "nowhere")
    assert code == 2
    assert "pip install 'ppl_vae[explore]'" in error


def test_bad_input_is_one_line(command):
    pytest.importorskip("panel", reason="needs: pip install -e '.[explore]'")
    assert command("explore", "nowhere") == (
        2,
        "",
        "ppl-vae: RUN is 'nowhere', which is no run folder (it has no config.json of ppl_vae); "
        "make one with ppl-vae fit\n",
    )
    assert "--rows 2000" in command("explore", "nowhere", "--rows", "1")[2]

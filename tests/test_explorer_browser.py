"""The explorer and the report as a browser has them, where Chromium and its driver are at hand."""

import importlib.util
import json
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from ppl_vae import VAE, VAEConfig, load_data
from ppl_vae.explorer import Explored
from ppl_vae.explorer.serving import free_port

pn = pytest.importorskip("panel", reason="needs: pip install -e '.[explore]'")
pytest.importorskip("selenium", reason="needs: pip install -e '.[test]'")
if not (shutil.which("chromedriver") and (shutil.which("chromium") or shutil.which("chrome"))):
    pytest.skip("Chromium and its driver are not here", allow_module_level=True)

from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

_FILE = Path(__file__).parents[1] / "docs" / "screenshot.py"
_SPEC = importlib.util.spec_from_file_location("screenshot", _FILE)
screenshot = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(screenshot)
SERIOUS = {"serious", "critical"}


@pytest.fixture(scope="module")
def seen():
    data = load_data("digits", "test")
    vae = VAE.from_config(VAEConfig.for_data(data.x, latent_dim=3, hidden=(16,)), seed=0)
    return Explored(vae, data, data.x, max_rows=40, progress=False)


@pytest.fixture(scope="module")
def address(seen):
    from ppl_vae.explorer.page import page_of

    port = free_port()
    server = pn.serve(
        {"/": lambda: page_of(seen, "digits: rows and latents")},
        address="127.0.0.1",
        port=port,
        websocket_origin=[f"127.0.0.1:{port}"],
        show=False,
        verbose=False,
        threaded=True,
    )
    yield f"http://127.0.0.1:{port}/"
    server.stop()
    assert threading.main_thread().is_alive()


@pytest.fixture
def driver(request):
    width, dark = getattr(request, "param", (1280, False))
    driver = screenshot.browser(width, 1400, dark)
    yield driver
    driver.quit()


class Page:
    """What a reader sees and touches, inside shadow roots."""

    def __init__(self, driver, address):
        self.driver = driver
        screenshot.show(driver, address, None)

    def find(self, what):
        return self.driver.execute_script(screenshot.FIND, what)

    def wait(self, condition):
        return WebDriverWait(self.driver, 120).until(lambda _: condition())

    def title(self):
        return self.find(".row h2").text

    def decoded(self):
        return self.find(".decoded img").get_attribute("src")

    def place(self, x, y):
        """Where a point of the map's data lies on the screen."""
        return self.driver.execute_script(
            """
            const models = [...Bokeh.documents[0]._all_models.values()]
            const figure = models.find(model => model.type === "Figure")
            const view = Bokeh.index.find_one(figure), box = view.el.getBoundingClientRect()
            return [box.left + view.frame.x_scale.compute(arguments[0]),
                    box.top + view.frame.y_scale.compute(arguments[1])]
            """,
            float(x),
            float(y),
        )


@pytest.mark.slow
def test_a_click_a_slider_and_what_is_decoded(driver, address, seen):
    page = Page(driver, address)
    assert page.title().startswith(f"Row {seen.worst[0]}, label ")

    # A row that lies apart from the others is clicked on the map.
    away = np.linalg.norm(seen.points[:, None] - seen.points, axis=-1)
    np.fill_diagonal(away, np.inf)
    row = int(away.min(1).argmax())
    x, y = page.place(*seen.points[row])
    ActionChains(driver).move_by_offset(round(x), round(y)).click().perform()
    page.wait(lambda: page.title().startswith(f"Row {row}, label {seen.labels[row]}"))
    assert page.find(".verdict").text.startswith(f"Verdict: {seen.verdict[row]}")
    assert seen.verdict_in_words(row)[0] in page.find(".verdict").text

    # A slider is moved by the keyboard, and the decoded image changes with it, and with it alone.
    from ppl_vae.explorer.shown import png_link, shown_range

    z, latent = seen.means[row].copy(), int(seen.latents[0])
    page.wait(lambda: page.decoded() == png_link(seen.decode(z, row=row), shown_range(seen.x)))
    page.find(f"#z{latent}").send_keys(Keys.END)
    z[latent] = seen.reach[1][latent]
    page.wait(lambda: page.decoded() == png_link(seen.decode(z, row=row), shown_range(seen.x)))
    assert "of the pixels differ" in page.find("[role=status]").text

    # By its number, by a neighbor, and out of the table.
    number = page.find("#row")
    number.send_keys(Keys.CONTROL, "a", Keys.NULL, "7", Keys.ENTER)
    page.wait(lambda: page.title().startswith("Row 7,"))
    page.find(".near button").click()
    page.wait(lambda: page.title().startswith(f"Row {seen.neighbors(7)[0]},"))
    page.find(".worst button").click()
    page.wait(lambda: page.title().startswith(f"Row {seen.worst[0]},"))

    # Nothing came from elsewhere.
    loaded = driver.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert loaded
    assert not [name for name in loaded if not name.startswith((address, "data:", "blob:"))]


@pytest.mark.parametrize("driver", [(390, True)], indirect=True)
def test_it_fits_a_phone_and_is_dark(driver, address):
    page = Page(driver, address)
    wide = driver.execute_script("return document.documentElement.scrollWidth")
    assert wide <= 390
    ink = driver.execute_script("return getComputedStyle(arguments[0]).color", page.find("h1"))
    assert ink == "rgb(230, 232, 235)"


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    """The source of axe-core, from npm."""
    if not shutil.which("npm"):
        pytest.skip("npm is not here")
    folder = tmp_path_factory.mktemp("axe")
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "axe-core"]
    if subprocess.run(command, cwd=folder).returncode:
        pytest.skip("npm does not reach a registry")
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text()


def faults(driver, axe):
    driver.execute_script(axe)
    found = driver.execute_async_script("axe.run().then(arguments[0])")
    return [
        (fault["impact"], fault["id"], fault["nodes"][0]["html"][:200])
        for fault in found["violations"]
        if fault["impact"] in SERIOUS
    ]


@pytest.mark.slow
@pytest.mark.parametrize("driver", [(1280, False), (1280, True), (390, False)], indirect=True)
def test_axe_finds_no_serious_fault_in_the_explorer(driver, address, axe):
    page = Page(driver, address)
    page.find("details").click()
    assert faults(driver, axe) == []


@pytest.mark.slow
@pytest.mark.parametrize("driver", [(1280, False), (390, True)], indirect=True)
def test_axe_finds_no_serious_fault_in_a_report(driver, axe, command, tmp_path):
    quick = ["--epochs", "2", "--draws", "50", "--hidden", "16", "--latent-dim", "2"]
    assert command("fit", *quick, "--out", "run", "--quiet")[0] == 0
    assert command("diagnose", "run", "--draws", "50", "--quiet")[0] == 0
    assert command("report", "run", "--quiet")[0] == 0
    driver.get((tmp_path / "run" / "report.html").as_uri())
    assert faults(driver, axe) == []
    # What is wider than a phone widens its viewport, so that innerWidth tells nothing.
    wide = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert driver.execute_script(wide)
    # A choice of colors is a matter of style alone.
    color = "return getComputedStyle(document.querySelector('.map use')).fill"
    before = driver.execute_script(color)
    driver.find_element("id", "by-khat").click()
    assert driver.execute_script(color) != before
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["missing"] == []

"""A picture of the explorer, or of a report, as Chromium shows it.

    python docs/screenshot.py runs/digits explorer.png
    python docs/screenshot.py runs/digits phone.png --width 390 --height 2400 --dark
    python docs/screenshot.py runs/digits/report.html report.png

Needs Chromium with its driver, and ``pip install 'ppl_vae[explore]' selenium``.
"""

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

from ppl_vae.explorer.serving import free_port

# The explorer's elements are inside Panel's shadow roots.
FIND = """
const seek = (root, what) => {
  const found = root.querySelector(what)
  if (found) return found
  for (const one of root.querySelectorAll("*"))
    if (one.shadowRoot) { const inner = seek(one.shadowRoot, what); if (inner) return inner }
  return null
}
return seek(document, arguments[0])
"""


def browser(width: int, height: int, dark: bool = False) -> webdriver.Chrome:
    """Chromium without a window, of the size of one."""
    options = webdriver.ChromeOptions()
    for argument in (
        *("--headless=new", "--no-sandbox", "--hide-scrollbars", "--disable-gpu"),
        f"--window-size={width},{height}",
    ):
        options.add_argument(argument)
    # Where the driver is known, selenium looks for none elsewhere.
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    # A window is at least 500 pixels wide; a phone is not.
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    return driver


def main() -> None:
    """Take the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="a run folder, or an HTML file")
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=1500)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--row", type=int, help="which row to look at; the worst if not given")
    given = parser.parse_args()
    driver, server = browser(given.width, given.height, given.dark), None
    try:
        if given.source.suffix == ".html":
            driver.get(given.source.resolve().as_uri())
        else:
            port = free_port()
            command = [sys.executable, "-m", "ppl_vae.cli", "explore", str(given.source)]
            server = subprocess.Popen([*command, "--no-browser", "--port", str(port)])
            show(driver, f"http://127.0.0.1:{port}/", given.row)
        driver.save_screenshot(str(given.out))
    finally:
        driver.quit()
        if server is not None:
            server.terminate()


def show(driver: webdriver.Chrome, address: str, row: int | None) -> None:
    """Wait until the explorer shows a row."""

    def opened(_: object) -> bool:
        try:
            driver.get(address)
        except Exception:  # the server is not there yet
            time.sleep(1)
            return False
        return True

    WebDriverWait(driver, 600, poll_frequency=1).until(opened)
    wait = WebDriverWait(driver, 300)
    number = wait.until(lambda _: driver.execute_script(FIND, "#row"))
    wait.until(lambda _: driver.execute_script(FIND, ".decoded > *"))
    if row is not None:
        driver.execute_script(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))",
            number,
            row,
        )
        wait.until(lambda _: driver.execute_script(FIND, ".row h2").text.startswith(f"Row {row}"))
    time.sleep(2)  # Bokeh draws when it is idle


if __name__ == "__main__":
    main()

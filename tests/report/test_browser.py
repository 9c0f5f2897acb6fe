"""The page as a browser shows it: on a phone, in the dark, on paper; and that it asks for nothing."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
from io import BytesIO

import pytest
from PIL import Image

pytestmark = pytest.mark.browser

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
)  # fmt: skip

# Luminance and contrast as WCAG 2.2 defines them, of every text against the nearest painted background.
LOWEST_CONTRAST = """
const light = c => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
const parts = colour => (colour.match(/[\\d.]+/g) || []).map(Number);
const luminance = colour => {
  const [r, g, b] = parts(colour);
  return 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
};
const painted = element => {
  for (let e = element; e; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor, p = parts(colour);
    if (p.length == 3 || p[3] > 0) return colour;
  }
  return 'rgb(255, 255, 255)';
};
let lowest = [99, ''];
for (const element of document.querySelectorAll('body *')) {
  const own = [...element.childNodes].some(n => n.nodeType == 3 && n.textContent.trim());
  if (!own || element.closest('.hidden')) continue;
  const style = getComputedStyle(element);
  const ink = element instanceof SVGElement ? style.fill : style.color;
  const [a, b] = [luminance(ink), luminance(painted(element))].sort((x, y) => y - x);
  const contrast = (a + 0.05) / (b + 0.05);
  if (contrast < lowest[0]) lowest = [contrast, element.outerHTML.slice(0, 120)];
}
return lowest;
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def crowded(folders, tmp_path_factory):
    """A page about nine models with long names and a long prompt in the protocol's name."""
    from veridical.report.command import ReportConfig, run

    folder = tmp_path_factory.mktemp("crowded")
    shutil.copytree(folders.eval, folder / "eval")
    results = json.loads((folder / "eval" / "results.json").read_text())
    [one] = results["comparisons"]
    for number in range(8):
        name = f"{number}-" + "a-long-name" * 6
        results["models"][name] = results["models"]["a<b> $x$"]
        results["comparisons"].append({**one, "model": name})
    results["protocols"]["chair"] += " + '" + "A prompt of one's own that is long. " * 4 + "x" * 80 + "'"
    (folder / "eval" / "results.json").write_text(json.dumps(results))
    return run(ReportConfig((folder / "eval",), out=folder / "report.html"))


def show(browser, page, *, width=1200, scheme="light"):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(page.as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_is_wider_than_the_screen(browser, page, crowded, width):
    for one in (page, crowded):
        show(browser, one, width=width)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_the_first_screen_holds_the_answer(browser, page, width, height):
    """The verdict, the numbers with their interval, what got worse, and a picture with both captions."""
    show(browser, page, width=width)
    within = "const r = document.querySelector(arguments[0]).getBoundingClientRect(); return r.height > 0 && r.bottom"
    for part in (".verdict", ".lines .said", ".lines .bar", ".screen p b", ".examples img", ".examples mark.invented"):
        assert 0 < browser.execute_script(within, part) <= height, part
    captions = browser.execute_script("return [...document.querySelectorAll('.examples dd')].map(e => e.textContent)")
    assert len(captions) == 2
    assert captions[0] != captions[1]
    assert "[" in browser.find_element("css selector", ".lines .said").text


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_all_text_has_enough_contrast(browser, page, scheme, width):
    show(browser, page, width=width, scheme=scheme)
    contrast, where = browser.execute_script(LOWEST_CONTRAST)
    assert contrast >= 4.5, where


def test_dark_is_dark_and_light_is_light(browser, page):
    def brightness(scheme):
        show(browser, page, scheme=scheme)
        with Image.open(BytesIO(base64.b64decode(browser.get_screenshot_as_base64()))) as shot:
            return sum(shot.convert("L").resize((1, 1)).tobytes())

    assert brightness("dark") < 80 < 200 < brightness("light")


def test_nothing_is_asked_for_and_nothing_goes_wrong(browser, page):
    browser.get_log("performance")
    show(browser, page)
    browser.execute_script("window.scrollTo(0, document.body.scrollHeight)")
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert page.as_uri() in asked
    assert [url for url in asked if url != page.as_uri() and not url.startswith("data:")] == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_galleries_show_their_pictures_and_marks(browser, page):
    show(browser, page)
    widths = browser.execute_script(
        "return Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))"
    )
    assert len(widths) == 1 + 12 + 8
    assert set(widths) == {192}
    # Rejected answers end in an object that preferred ones do not have, so no gallery card has words added.
    shown = {kind: len(browser.find_elements("css selector", f".card mark.{kind}")) for kind in ("removed", "invented")}
    assert min(shown.values()) >= 5


def test_text_in_captions_and_names_stays_text(browser, page):
    show(browser, page)
    assert browser.title == "What the model makes up, before and after"
    assert "<script>document.title" in browser.find_element("id", "pairs").text
    assert "a<b> $x$" in browser.find_element("css selector", "#result svg").get_attribute("textContent")


def test_every_picture_and_plot_has_a_text_and_headings_go_step_by_step(browser, page):
    show(browser, page)
    assert browser.execute_script(
        "return [...document.querySelectorAll('img')].every(i => i.alt)"
        " && [...document.querySelectorAll('svg')]"
        ".every(s => s.getAttribute('role') == 'img' && s.getAttribute('aria-label'))"
    )
    levels = browser.execute_script("return [...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_it_prints(browser, page):
    show(browser, page)
    pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"])
    assert pdf.startswith(b"%PDF")
    assert 2 <= pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") <= 30

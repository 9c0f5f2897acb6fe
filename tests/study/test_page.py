"""The study's page as a browser shows it: interactive, on a phone, in the dark, and without a script."""

from __future__ import annotations

import copy
import json

import pytest
from tests.report.test_browser import LOWEST_CONTRAST, browser, show  # noqa: F401

from veridical.report.study_charts import pareto
from veridical.report.study_page import page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def shown(study_folder, results, tmp_path_factory):
    """A page about a grid of six arms, copies of the one that ran, so that every chart has something to show."""
    whole = copy.deepcopy(results)
    one, row = whole["arms"].pop("8.bpo-image"), next(r for r in whole["pairs"] if r["second"] == "8.bpo-image")
    whole["arms"].clear()
    whole["pairs"].clear()
    whole["axes"] = {"beta": ["0.1", "0.3", "0.5"], "objective": ["dpo", "sft"]}
    whole["values"] = {"beta": [0.1, 0.3, 0.5], "objective": ["dpo", "sft"]}
    for number, beta in enumerate(whole["axes"]["beta"]):
        for objective in whole["axes"]["objective"]:
            arm = copy.deepcopy(one) | {"levels": {"beta": beta, "objective": objective}}
            for found in arm["numbers"].values():
                if found:
                    found |= {key: found[key] - 3 * number for key in ("value", "low", "high")}
            whole["arms"][f"{beta}.{objective}"] = arm
            whole["pairs"].append(copy.deepcopy(row) | {"second": f"{beta}.{objective}"})
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(study_folder / "out", whole), encoding="utf-8")
    return path


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(browser, shown, width, scheme):  # noqa: F811
    show(browser, shown, width=width, scheme=scheme)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    contrast, where = browser.execute_script(LOWEST_CONTRAST)
    assert contrast >= 4.5, where


def test_charts_are_drawn_by_the_script_and_nothing_is_asked_for(browser, shown):  # noqa: F811
    browser.get_log("performance")
    show(browser, shown, width=1280)
    drawn = "return [...document.querySelectorAll('.chart')].map(c => c.querySelectorAll('.live svg').length)"
    counts = browser.execute_async_script(
        f"const done = arguments[0]; setTimeout(() => done((() => {{ {drawn} }})()), 1500)"
    )
    assert len(counts) >= 5
    assert set(counts) == {1}
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if url != shown.as_uri() and not url.startswith("data:")] == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_table_sorts_filters_and_compares(browser, shown):  # noqa: F811
    show(browser, shown, width=1280)
    arms = "return [...document.querySelectorAll('.arms tbody tr')].filter(r => !r.hidden).map(r => r.dataset.arm)"
    assert browser.execute_script(arms)[0] == "base"
    heads = browser.find_elements("css selector", ".arms thead button")
    heads[2].click()
    assert browser.execute_script(arms)[0].startswith("0.5")
    heads[2].click()
    assert not browser.execute_script(arms)[0].startswith("0.5")
    box = browser.find_element("id", "filter")
    box.send_keys("0.3 sft")
    assert browser.execute_script(arms) == ["0.3.sft"]
    box.clear()
    box.send_keys(" ")
    differences = "return [...document.querySelectorAll('.arms .difference')].filter(d => d.textContent).length"
    assert browser.execute_script(differences) > 10
    browser.execute_script(
        "const p = document.getElementById('pin'); p.value = ''; p.dispatchEvent(new Event('change'))"
    )
    assert browser.execute_script(differences) == 0


def test_without_a_script_the_charts_are_there_too(shown):
    text = shown.read_text(encoding="utf-8")
    assert text.count('<div class="still"><svg') == text.count('<figure class="chart"')
    assert "#0101" not in text.split('<script type="application/json"')[0]
    assert "A small &lt;study&gt;" in text


def test_the_front_holds_what_no_other_beats():
    rows = [{"x": 90, "y": 50}, {"x": 80, "y": 20}, {"x": 70, "y": 30}, {"x": 95, "y": 60}]
    assert pareto(rows) == [{"x": 80, "y": 20}, {"x": 90, "y": 50}, {"x": 95, "y": 60}]

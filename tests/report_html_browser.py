#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Opens HTML reports in Chromium, at two widths and in both colour schemes.

    tests/report_html_browser.py MLSTM CAPTURES

MLSTM is the program, CAPTURES a directory of captures of which some fail. Exit status 77 (a skip, said aloud) without
Selenium or Chromium.
"""
import hashlib
import html.parser
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

try:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
except ImportError:
    webdriver = None

HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">'&"
WIDTHS = (400, 1400)
LARGE = 30000


def write_report(directory, items, details=()):
    """A report directory as `mlstm verify --report` leaves it."""
    os.makedirs(directory)
    summary = {status: 0 for status in "PASS FAIL MISTRUSTED SKIPPED ERROR TIMEOUT STALE".split()}
    for item in items:
        summary[item["status"]] += 1
    text = json.dumps({"summary": summary, "items": items})
    with open(os.path.join(directory, "report.json"), "w") as file:
        file.write(text)
    if details:
        digest = hashlib.sha256(text.encode()).hexdigest()
        with open(os.path.join(directory, "details.json"), "w") as file:
            json.dump({"details": 1, "report_sha256": digest, "items": details}, file)


def item_of(variant, case, tensor, ratio, spec, status=None):
    convention = "exact" if tensor.startswith("d") else None
    return {"variant": variant, "case": case, "tensor": tensor, "convention": convention,
            "status": status or ("PASS" if ratio <= 1 else "FAIL"), "error_ratio": ratio, "max_abs_error": 1e-6,
            "rel_frobenius": 1e-5, "worst_index": [0, 1, 7, 1], "note": "",
            "repro": f'mlstm verify --variant {variant} --case "{spec}"'}


def hostile_report(directory):
    """Names that are markup, every status, and a kill matrix."""
    items = []
    for n, status in enumerate("PASS FAIL MISTRUSTED SKIPPED ERROR TIMEOUT STALE".split()):
        items.append(item_of(f"chunkwise--{HOSTILE}", f"{HOSTILE} {n}", "h", 0.5 + n, "S=8", status))
        items[-1]["note"] = HOSTILE
    write_report(directory, items)
    mutants = [{"name": f"{HOSTILE} {n}", "family": "mask", "module": "parallel", "description": HOSTILE, "detected": n != 2,
                "by": {"problem": HOSTILE, "check": "bound", "repro": f"mlstm verify {n}"},
                "kills": {regime: {"bound": [n, 4], "poison": [0, 4]} for regime in ("forget3", "forget6", HOSTILE)}}
               for n in range(5)]
    with open(os.path.join(directory, "mutate.json"), "w") as file:
        json.dump({"score": 0.8, "mutants": mutants, "false_alarms": {"verdicts": 9, "not_passed": 0},
                   "rules": [{"name": HOSTILE, "description": HOSTILE, "mutants": {"setting": [3, 5], "suite": [4, 5]},
                              "false_alarms": {"setting": [0, 9], "suite": [1, 9]}}]}, file)


def large_report(directory):
    variants = [f"{module}--native_eigen_ownbw" for module in ("chunkwise", "parallel", "recurrent")]
    items, details, seed = [], [], 0
    while len(items) < LARGE:
        seed += 1
        regime, eps = f"forget{seed % 3 * 3}", ("0", "1e-06", "1")[seed // 3 % 3]
        spec = f"regime={regime},seed={seed},eps={eps},dtype=float32,B=1,NH=2,S=16,DHQK=2,DHV=2,L=4"
        for variant in variants:
            for tensor in ("h", "dq", "dk", "dv"):
                failed = variant.startswith("parallel") and seed % 5 == 0
                items.append(item_of(variant, f"case{seed}", tensor, 7.5 if failed else 0.25, spec))
                details.append({"item": len(items) - 1, "problem": spec, "regime": regime, "got": "0.5",
                                "expected": "0.25", "bound": "0.03", "shape": [1, 2, 16, 2], "storage": "float32"})
    write_report(directory, items[:LARGE], details[:LARGE])


class Nesting(html.parser.HTMLParser):
    """Finds elements that are not closed, or in the wrong order."""
    EMPTY = {"meta", "link", "br", "input", "img"}

    def __init__(self):
        super().__init__()
        self.open, self.faults = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")


# The lowest contrast of text with what lies behind it, for every visible text, over what WCAG 2.1 AA asks for.
CONTRAST = """
const parse = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
const over = (top, bottom) => [0, 1, 2].map((k) => top[k] * top[3] + bottom[k] * (1 - top[3])).concat(1);
const luminance = (rgb) => { const c = rgb.slice(0, 3).map((x) => (x /= 255) <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
  return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2]; };
const behind = (e) => { const own = parse(getComputedStyle(e).backgroundColor);
  return own[3] === 1 ? own : over(own, e.parentElement ? behind(e.parentElement) : [255, 255, 255, 1]); };
const bad = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let node; (node = walker.nextNode());) {
  const e = node.parentElement, style = getComputedStyle(e);
  if (!node.textContent.trim() || !e.checkVisibility({checkOpacity: true, checkVisibilityCSS: true}) || e.closest("script, style, .sr")) continue;
  const colour = e.namespaceURI.endsWith("svg") ? style.fill : style.color;
  const ground = behind(e.namespaceURI.endsWith("svg") ? e.closest("svg").parentElement : e);
  const [a, b] = [luminance(over(parse(colour), ground)), luminance(ground)].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05), large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.7 && style.fontWeight >= 600);
  if (ratio < (large ? 3 : 4.5)) bad.push(`${ratio.toFixed(2)} "${node.textContent.slice(0, 30)}" ${e.tagName}.${e.getAttribute("class")}`);
}
return bad;
"""


class ReportInBrowser(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.directory)
        captures, hostile, large = (os.path.join(cls.directory, name) for name in ("captures", "hostile", "large"))
        # Status 1: some of the captures are wrong, on purpose.
        cls.mlstm("verify", "--captures", CAPTURES, "--report", captures, status=1)
        hostile_report(hostile)
        large_report(large)
        cls.captures = cls.render("captures.html", captures)
        cls.hostile = cls.render("hostile.html", captures, hostile)
        cls.large = cls.render("large.html", large)
        options = webdriver.ChromeOptions()
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        cls.browser = webdriver.Chrome(service=Service(shutil.which("chromedriver")), options=options)
        cls.addClassCleanup(cls.browser.quit)
        cls.browser.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]})

    @classmethod
    def mlstm(cls, *arguments, status):
        done = subprocess.run([MLSTM, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode != status:
            raise AssertionError(f"mlstm {arguments}: exit status {done.returncode}; expected {status}\n{done.stderr}")

    @classmethod
    def render(cls, name, *directories):
        path = os.path.join(cls.directory, name)
        cls.mlstm("report", *directories, "--format", "html", "--out", path, status=1)
        return path

    def open(self, path, width=1400, scheme="light"):
        """Opens the page and waits until its scripts have run. Nothing may be on the console."""
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                                     {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False})
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia",
                                     {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
        self.browser.get("file://" + path)
        self.wait("document.documentElement.dataset.ready === 'true'")

    def wait(self, condition, seconds=120):
        end = time.monotonic() + seconds
        while not self.js(f"return {condition}"):
            self.assertLess(time.monotonic(), end, f"still not: {condition}")
            time.sleep(0.02)

    def js(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def all(self, selector):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def tearDown(self):
        self.assertEqual([entry["message"] for entry in self.browser.get_log("browser")], [])

    def open_everything(self):
        self.js("for (const d of document.querySelectorAll('details')) d.open = true;"
                "document.querySelector('.worst tr button')?.click();"
                "document.querySelectorAll('.grid th > button').forEach((b) => b.click());"
                "document.querySelector('.grid .cell button')?.click();")
        self.js("return new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))")

    def test_both_widths_and_schemes_fit_and_can_be_read(self):
        for width, scheme in itertools.product(WIDTHS, ("light", "dark")):
            with self.subTest(width=width, scheme=scheme):
                self.open(self.hostile, width, scheme)  # which has everything
                ground = self.js("return getComputedStyle(document.body).backgroundColor")
                self.assertEqual(ground, "rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 26)")
                for state in ("as it opens", "all open"):
                    self.assertEqual(self.js(CONTRAST), [], state)
                    self.assertEqual(self.js("return document.documentElement.scrollWidth"), width, state)
                    self.open_everything()

    def test_grid_cells_count_all_items(self):
        self.open(self.large)
        for grid in ("by-regime", "by-eps"):
            counts = self.js(f"return [...document.querySelectorAll('#{grid} > tbody > tr:not(.sub) td[data-n]')].map((c) => Number(c.dataset.n))")
            self.assertEqual(sum(counts), LARGE)
            self.assertEqual(len(counts), 9)

    def test_large_reports_put_few_elements_on_the_page(self):
        self.open(self.large)
        self.assertLess(self.js("return document.querySelectorAll('*').length"), 5000)

    def test_filters_and_rows_and_cells_open(self):
        self.open(self.large)
        shown = lambda: self.js("return document.querySelector('#filters output').textContent")
        self.assertEqual(shown(), f"{LARGE} tensors")
        failed = self.js("return document.querySelector('#filters [name=failed]').click() ?? document.querySelector('#filters output').textContent")
        self.assertEqual(failed, "2000 tensors")
        self.assertEqual({cell.get_attribute("class") for cell in self.all("#by-regime .cell")}, {"cell FAIL"})
        self.js("const s = document.querySelector('#filters [name=tensor]'); s.value = 'dk'; s.dispatchEvent(new Event('change'))")
        self.assertEqual(shown(), "500 tensors")
        row = self.all("#by-regime tbody th > button")[0]
        row.send_keys(Keys.ENTER)
        self.assertEqual(row.get_attribute("aria-expanded"), "true")
        problems = self.all("#by-regime tr.sub")
        self.assertEqual(sum(int(c.get_attribute("data-n")) for c in self.all("#by-regime tr.sub td[data-n]")),
                         int(self.all("#by-regime tr:not(.sub) td[data-n]")[0].get_attribute("data-n")))
        row.send_keys(Keys.ENTER)
        self.assertEqual(len(self.all("#by-regime tr.sub")), 0)
        self.assertGreater(len(problems), 100)
        self.all("#by-regime .cell button")[0].send_keys(Keys.SPACE)
        panel = self.all("#by-regime-panel")[0]
        self.assertTrue(panel.is_displayed())
        first = panel.find_element(By.CSS_SELECTOR, ".item")
        self.assertEqual(len(panel.find_elements(By.CSS_SELECTOR, ".item")), 40)
        panel.find_element(By.CSS_SELECTOR, ".more").click()
        self.assertEqual(len(panel.find_elements(By.CSS_SELECTOR, ".item")), 80)
        first.find_element(By.CSS_SELECTOR, "summary").click()
        self.wait("document.querySelector('.panel .item .card .repro code') !== null")
        panel.find_element(By.CSS_SELECTOR, "header button").click()
        self.assertFalse(panel.is_displayed())

    def test_the_copied_line_is_the_reproduction_line(self):
        self.open(self.captures)
        with open(os.path.join(self.directory, "captures", "report.json")) as file:
            items = json.load(file)["items"]
        failed = [item for item in items if item["status"] == "FAIL"]
        self.assertGreater(len(failed), 5)
        entries = self.all("details.failure")
        self.assertEqual(len(entries), len({(i["variant"], i["tensor"], i["convention"]) for i in failed}))
        entry = entries[0]
        entry.find_element(By.CSS_SELECTOR, "summary").click()
        code, button = entry.find_element(By.CSS_SELECTOR, "code"), entry.find_element(By.CSS_SELECTOR, "button.copy")
        self.assertIn(code.text, {item["repro"] for item in failed})
        button.click()
        self.wait("document.querySelector('details.failure button.copy').textContent === 'Copied'")
        self.assertEqual(self.browser.execute_async_script("navigator.clipboard.readText().then(arguments[0])"), code.text)
        self.assertEqual(self.js("getSelection().selectAllChildren(arguments[0]); return getSelection().toString()", code), code.text)

    def test_pictures_are_drawn_and_say_what_they_show(self):
        self.open(self.captures)
        for entry in self.all("details.failure"):
            entry.find_element(By.CSS_SELECTOR, "summary").click()
        self.wait("[...document.querySelectorAll('details.failure')].every((d) => d.querySelectorAll('figure').length === 3)")
        labels = self.js("return [...document.querySelectorAll('details.failure [role=img]')].map((e) => e.getAttribute('aria-label'))")
        self.assertEqual(len(labels), 3 * len(self.all("details.failure")))
        self.assertTrue(all(labels))
        times = [label for label in labels if label.startswith("error_ratio over time")]
        self.assertTrue(all("beyond the bound" in label for label in times), times)
        # A published kernel is wrong at the end of chunks of 256 steps.
        self.assertTrue(any("chunks of 256" in label for label in times), times)
        self.assertGreater(len(self.all("details.failure svg .chunk")), 2)
        colours = self.js("const c = document.querySelector('details.failure canvas');"
                          "return new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size")
        self.assertGreater(colours, 10)

    def test_scripts_say_where_the_worst_element_is_as_the_static_page_does(self):
        self.open(self.captures)
        same = self.js("return [...document.querySelectorAll('details.failure > .card')].map((c) => {"
                       "const of = (card) => [...card.querySelectorAll('dl > div')].filter((d) => /Element|Got|Expected|Bound|Shape/.test(d.textContent)).map((d) => d.textContent);"
                       "const row = document.querySelector(`.worst tr[data-item='${c.dataset.item}']`); row.querySelector('button').click();"
                       "return [of(c), of(row.nextElementSibling.querySelector('.card'))]; })")
        self.assertGreater(len(same), 5)
        for static, scripted in same:
            self.assertEqual(static, scripted)
            self.assertEqual(len(static), 5)

    def test_worst_elements_open_with_the_keyboard(self):
        self.open(self.captures)
        self.all("details.worst")[0].find_element(By.CSS_SELECTOR, "summary").send_keys(Keys.ENTER)
        button = self.all("details.worst tr button")[0]
        button.send_keys(Keys.ENTER)
        self.assertEqual(button.get_attribute("aria-expanded"), "true")
        self.assertEqual(len(self.all("tr.opened .card .repro")), 1)
        button.send_keys(Keys.ENTER)
        self.assertEqual(len(self.all("tr.opened")), 0)

    def test_the_kill_matrix_by_check(self):
        self.open(self.hostile)
        cells = lambda: [cell.text for cell in self.all(".kills tbody tr")[1].find_elements(By.CSS_SELECTOR, "td")[1:]]
        self.assertEqual(cells(), ["0/4"] * 3)
        self.assertEqual(self.all(".kills tbody tr")[0].find_element(By.CSS_SELECTOR, ".pill").text.split(), ["✗", "no"])
        self.assertEqual([cell.text for cell in self.all(".kills tbody tr")[-1].find_elements(By.CSS_SELECTOR, "td.kill")], ["4/4"] * 3)
        self.js("const s = document.querySelector('.mutants select'); s.value = 'poison'; s.dispatchEvent(new Event('change'))")
        self.assertEqual([cell.text for cell in self.all(".kills tbody tr")[-1].find_elements(By.CSS_SELECTOR, "td.kill")], ["0/4"] * 3)

    def test_rows_of_the_kill_matrix_lead_to_what_the_bug_is(self):
        self.open(self.hostile)
        link = self.all(".kills tbody tr")[1].find_element(By.CSS_SELECTOR, "a")
        entry = self.all("#" + link.get_attribute("href").partition("#")[2])[0]
        self.assertFalse(self.js("return arguments[0].checkVisibility()", entry))
        link.send_keys(Keys.ENTER)
        self.wait("location.hash !== ''")
        self.assertTrue(self.js("return arguments[0].checkVisibility()", entry))
        self.assertEqual(entry.text, HOSTILE)
        self.assertEqual(entry.find_element(By.XPATH, "..").find_element(By.CSS_SELECTOR, "code").text, "mlstm verify 0")

    def test_names_that_are_markup_stay_text(self):
        self.open(self.hostile)
        self.open_everything()
        self.assertEqual(self.browser.title, "mLSTM verification report")
        self.assertEqual(len(self.all("img")), 0)
        self.assertEqual(len(self.all("script")), 2)
        names = self.js("return [...document.querySelectorAll('#by-regime thead th')].map((e) => e.textContent)")
        self.assertIn(f"chunkwise--{HOSTILE}", names)

    def test_main_tables_need_no_scripts(self):
        self.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        try:
            self.browser.get("file://" + self.captures)
            for selector in (".verdict h1", ".counts", "#by-regime td.cell", "#by-eps td.cell", "details.failure summary"):
                self.assertTrue(self.all(selector)[0].is_displayed(), selector)
            self.assertFalse(self.all("button.copy")[0].is_displayed())
        finally:
            self.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})

    def test_elements_are_closed_in_order(self):
        for path in (self.captures, self.hostile, self.large):
            with open(path, encoding="utf-8") as file:
                parser = Nesting()
                parser.feed(file.read())
            parser.close()
            self.assertEqual((parser.faults, parser.open), ([], []), path)

    def test_table_cells_have_headings(self):
        self.open(self.hostile)
        self.open_everything()
        self.assertEqual(self.js("return [...document.querySelectorAll('th')].filter((h) => !h.scope).length"), 0)
        nameless = self.js("return [...document.querySelectorAll('button, select, input, [role=region]')].filter((e) =>"
                           "!(e.getAttribute('aria-label') || e.textContent.trim() || e.closest('label'))).map((e) => e.outerHTML)")
        self.assertEqual(nameless, [])


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    MLSTM, CAPTURES = sys.argv.pop(1), sys.argv.pop(1)
    if webdriver is None or shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        print("SKIPPED: python3-selenium, chromium or chromium-driver is not installed")
        sys.exit(77)
    unittest.main(verbosity=2)

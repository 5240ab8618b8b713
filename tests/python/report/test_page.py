"""The page of winnow report in a real browser: what a reader sees, on a telephone and on a desk, light and dark."""

import csv
import io
import json
import os
import re
import shutil

import h5py
import launch
import numpy as np
import pytest
import result_files
import run_folder
import tiny

from winnow.report import command_line

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
NARROW, WIDE = 400, 1600
HOSTILE = "</script><b>example</b>"
WORDS = [f"</script><b>word-{i}" for i in range(64)]

if CHROMIUM is None and not os.environ.get("CI"):
    pytest.skip("there is no Chromium; jobs/setup.sh browser gets it", allow_module_level=True)


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="there is no playwright; jobs/setup.sh python gets it")
    with sync_api.sync_playwright() as playwright:
        # Containers often have no user namespaces, which the sandbox needs; the page is our own.
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def write_page(sources, out):
    assert command_line.main([*map(str, sources), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """{name: page}: a real run with per-token NLL, a made-up result with everything, three results together."""
    work = tmp_path_factory.mktemp("pages")
    tiny.write_checkpoint(work / "model", layers=8, seed=8)
    tiny.write_tokenizer(work / "model", WORDS)
    tiny.write_calibration(work / "long.h5", [60, 50, 70, 40, 64, 48, 52, 66, 44])
    tiny.write_calibration(work / "short.h5", [20, 24, 22, 21], prefix="short")
    more = ["--control", f"short={work / 'short.h5'}", "--window", 8, "--per-token"]
    done = launch.run(run_folder.arguments("calibrate", work, "run", *more), work / "cache")
    assert done.returncode == 0, done.stderr
    ids = [HOSTILE, *(f"example-{i:04d}" for i in range(1, 40))]
    result_files.write(work / "full.h5", 40, 36, ids=ids)
    result_files.add_signals(work / "full.h5")
    result_files.write_evaluation(work / "evaluation.h5")
    result_files.write_search(work / "search.h5")
    result_files.write(work / "other.h5", 40, 36, seed=3, window=1024)
    result_files.write(work / "large.h5", 1000, 96)
    result_files.run_all_kinds(work / "kinds", launch, tiny)
    result_files.write_evaluation(work / "types.h5")
    kinds = [["bf16", "fp8", "int8", "int4"][(layer + pattern) % 4] for pattern in range(5) for layer in range(12)]
    windows = [[0, 512, 2048, 24576, 1000][(layer * pattern) % 5] for pattern in range(5) for layer in range(12)]
    result_files.add_settings(work / "types.h5", np.reshape(windows, (5, 12)), np.reshape(kinds, (5, 12)))
    (work / "plans.json").write_text(json.dumps(result_files.plans(has_types=True)))
    kinds = [work / "kinds" / name for name in ("calibration", "evaluation", "search")]
    return {
        "kinds": write_page(kinds, work / "kinds.html"),
        "run": write_page([work / "run"], work / "run.html"),
        "full": write_page([work / "full.h5"], work / "full.html"),
        "several": write_page([work / "run", work / "full.h5", work / "other.h5"], work / "several.html"),
        "large": write_page([work / "large.h5"], work / "large.html"),
        "evaluation": write_page([work / "evaluation.h5"], work / "evaluation.html"),
        "types": write_page([work / "types.h5"], work / "types.html"),
        "plans": write_page([work / "plans.json"], work / "plans.html"),
        "search": write_page([work / "search.h5"], work / "search.html"),
        "mixed": write_page([work / name for name in ("full.h5", "search.h5", "evaluation.h5")], work / "mixed.html"),
        "work": work,
    }


class Opened:
    """A page with what went wrong on it, and what it asked the network for."""

    def __init__(self, browser, file, width, scheme="light"):
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.page = self.context.new_page()
        self.wrong, self.requests = [], []
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()

    def check_quiet(self):
        assert self.wrong == []
        assert [url for url in self.requests if not url.startswith("data:")] == [self.file.as_uri()]


def texts_of_each_view(page):
    """[(figure and view, edges of the chart, [(words, left, top, right, bottom)])], each view shown in its turn."""
    return page.evaluate("""() => {
        const edges = box => [box.left, box.top, box.right, box.bottom], found = [];
        for (const one of document.querySelectorAll('details')) one.open = true;
        for (const figure of document.querySelectorAll('figure.figure')) {
          const variants = [...figure.querySelectorAll('.variant')];
          for (const shown of variants) {
            for (const one of variants) one.hidden = one !== shown;
            for (const chart of shown.querySelectorAll('svg.chart')) {
              if (!chart.getBoundingClientRect().width) continue;
              found.push([figure.id + ' ' + shown.dataset.variant, edges(chart.getBoundingClientRect()),
                [...chart.querySelectorAll('text')].map(
                  text => [text.textContent, ...edges(text.getBoundingClientRect())])]);
            }
          }
        }
        return found; }""")


def check_no_texts_meet(page):
    """How many texts were looked at. Their boxes have 2 pixels of air above and below the letters."""
    count = 0
    for view, (edge_left, edge_top, edge_right, edge_bottom), texts in texts_of_each_view(page):
        count += len(texts)
        boxes = [(words, left, top + 2, right, bottom - 2) for words, left, top, right, bottom in texts]
        for i, (words, left, top, right, bottom) in enumerate(boxes):
            assert edge_left - 0.5 <= left and right <= edge_right + 0.5, (view, words)
            assert edge_top - 0.5 <= top and bottom <= edge_bottom + 0.5, (view, words)
            for other in boxes[i + 1 :]:
                assert right <= other[1] + 0.5 or other[3] <= left + 0.5 or bottom <= other[2] or other[4] <= top, (
                    view,
                    words,
                    other[0],
                )
    return count


@pytest.mark.parametrize("width", [NARROW, WIDE])
@pytest.mark.parametrize("scatter", ["close", "apart", "same"])
def test_no_texts_of_twenty_patterns_meet(browser, tmp_path, scatter, width):
    """Of 20 patterns at three budgets, whose values lie close together, apart, or upon each other."""
    patterns = {"full": (list(range(12)), 1.0), "windowed": ([], 0.0)}
    for i in range(18):
        share = {"close": 0.5 + 0.004 * i, "apart": i / 18, "same": 0.5}[scatter]
        name = ("light-transfer", "list:1,4,5,7,8,9,10", "kl", "random")[i % 4]
        patterns[f"{name}:{i}"] = (list(range(2 + i % 3)), share)
    result_files.write_evaluation(tmp_path / "many.h5", patterns)
    with Opened(browser, write_page([tmp_path / "many.h5"], tmp_path / "many.html"), width) as opened:
        assert check_no_texts_meet(opened.page) > 200
        for view, _, texts in texts_of_each_view(opened.page):
            if view.startswith("front"):  # every pattern is named, long names in part
                named = {words for words, *_ in texts}
                whole = [name for name in patterns if not name.startswith("list")]
                assert set(whole) <= named and len(named) >= 20, view
        opened.check_quiet()


@pytest.mark.parametrize("width", [NARROW, WIDE])
@pytest.mark.parametrize("name", ["run", "full", "several", "large", "evaluation", "search", "plans", "types", "kinds"])
def test_no_texts_of_any_figure_meet(browser, pages, name, width):
    with Opened(browser, pages[name], width) as opened:
        assert check_no_texts_meet(opened.page) > 40
        opened.check_quiet()


@pytest.mark.parametrize("width", [NARROW, WIDE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["run", "full", "several", "large", "evaluation", "search", "plans", "mixed", "kinds"])
def test_every_figure_is_drawn(browser, pages, name, scheme, width):
    with Opened(browser, pages[name], width, scheme) as opened:
        page = opened.page
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        # As of a pattern that is a list of many layers, which has nowhere to break.
        page.evaluate("""document.querySelectorAll('.budget .of, .lead').forEach(one => {
            one.textContent += 'list:' + [...Array(40).keys()]; })""")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        beyond = page.evaluate("""[...document.querySelectorAll('svg.chart, .reading, h3, .budget')].filter(one => {
            const box = one.getBoundingClientRect();
            return box.width && (box.left < -1 || box.right > innerWidth + 1); }).length""")
        assert beyond == 0
        figures = page.evaluate("""[...document.querySelectorAll('figure.figure')].map(figure => ({
            id: figure.id, title: figure.querySelector('h3').textContent,
            reading: figure.querySelector('.reading').textContent,
            charts: [...figure.querySelectorAll('svg.chart')].filter(
              chart => chart.getBoundingClientRect().width > 0).map(
              chart => [chart.querySelectorAll('.mark').length, chart.getAttribute('aria-label'),
                        chart.getBoundingClientRect().height]) }))""")
        assert len(figures) >= {"several": 10, "mixed": 18, "kinds": 18, "search": 4, "plans": 3}.get(name, 6)
        for figure in figures:
            assert figure["reading"].endswith("."), figure
            assert len(figure["charts"]) == 1, figure
            marks, label, height = figure["charts"][0]
            assert marks > 0 and label and height > 20, figure
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (dark == "rgb(21, 23, 26)") == (scheme == "dark")
        opened.check_quiet()


FIGURES = {
    "full": {
        "deltas",
        "certainty",
        "examples",
        "control-0",
        "exact-match",
        "stability",
        "signals",
        "signal-pairs",
        "partial-rho",
        "transfer",
    },
    "evaluation": {"front", "loss-memory", "minus-full", "minus-baseline", "costs", "generation", "patterns"},
    "plans": {"plan-windows", "plan-losses", "plan-engines"},
    "search": {"greedy-forward-kept", "greedy-forward-course", "greedy-forward-verified", "pairs"},
}


@pytest.mark.parametrize("width", [NARROW, WIDE])
@pytest.mark.parametrize("name", FIGURES)
def test_every_view_of_every_figure_has_marks(browser, pages, name, width):
    with Opened(browser, pages[name], width) as opened:
        page = opened.page
        ids = page.evaluate("[...document.querySelectorAll('figure.figure')].map(figure => figure.id)")
        assert FIGURES[name] <= set(ids)
        for id_ in ids:
            for button in page.query_selector_all(f"#{id_} [data-show]"):
                button.click()
                seen = page.evaluate(f"""[...document.querySelectorAll('#{id_} svg.chart')].filter(
                    chart => chart.getBoundingClientRect().width > 0).map(
                    chart => chart.querySelectorAll('.mark').length)""")
                assert len(seen) == 1 and seen[0] > 0
                assert button.get_attribute("aria-pressed") == "true"
        opened.check_quiet()


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_hover_names_the_example_and_its_value(browser, pages, width):
    with h5py.File(pages["work"] / "full.h5") as file:
        delta = file["calibration/delta_nll"][:]
        ids = [text.decode() for text in file["calibration/example_id"][:]]
    with Opened(browser, pages["full"], width) as opened:
        page = opened.page
        image = next(one for one in page.query_selector_all("#examples image.matrix") if one.is_visible())
        image.scroll_into_view_if_needed()
        for name, order in (("as in the file", np.arange(40)), ("by cost", np.argsort(-delta.mean(1), kind="stable"))):
            page.get_by_role("button", name=name, exact=True).click()
            box = image.bounding_box()
            for row, column in ((0, 0), (17, 5), (39, 35)):
                page.mouse.move(
                    box["x"] + (column + 0.5) / 36 * box["width"], box["y"] + (row + 0.5) / 40 * box["height"]
                )
                lines = page.inner_text("#tip").split("\n")
                assert lines[0] == ids[order[row]]
                layer, value = re.fullmatch(r"layer (\d+): delta NLL (\S+) nats per token", lines[1]).groups()
                assert int(layer) == column
                np.testing.assert_allclose(float(value.replace("\u2212", "-")), delta[order[row], column], rtol=6e-3)
                assert lines[2].startswith("prompt ")
        assert HOSTILE in ids
        opened.check_quiet()


def test_hover_names_the_pattern_and_its_figures(browser, pages):
    with h5py.File(pages["work"] / "evaluation.h5") as file:
        names = [text.decode() for text in file["evaluation/pattern"][:]]
        match = file["evaluation/mean_exact_match"][:]
        full = file["evaluation/full_layers"][:]
    with Opened(browser, pages["evaluation"], WIDE) as opened:
        page = opened.page
        seen = {}
        for mark in page.query_selector_all("#front .mark"):
            if mark.is_visible():
                mark.hover(force=True)
                first, second, *_ = page.inner_text("#tip").split("\n")
                name, _, k = first.rpartition(": ")
                seen[name] = (int(k.split()[0]), second)
        assert set(seen) == set(names)
        for i, name in enumerate(names):
            assert seen[name][0] == full[i] and seen[name][1].startswith(f"exact match {100 * match[i]:.0f}")
        opened.check_quiet()


def test_colours_of_the_heat_map_follow_the_scheme_and_the_values(browser, pages):
    with h5py.File(pages["work"] / "full.h5") as file:
        delta = file["calibration/delta_nll"][:]
    colour = """async ([row, column]) => {
        const image = new Image();
        image.src = [...document.querySelectorAll('#examples image.matrix')][0].getAttribute('href');
        await image.decode();
        const canvas = document.createElement('canvas'); canvas.width = image.width; canvas.height = image.height;
        const context = canvas.getContext('2d'); context.drawImage(image, 0, 0);
        return [...context.getImageData(column, row, 1, 1).data].slice(0, 3); }"""
    with Opened(browser, pages["full"], WIDE) as opened:
        page = opened.page
        page.get_by_role("button", name="as in the file", exact=True).click()
        high, low = (np.unravel_index(f(delta), delta.shape) for f in (np.argmax, np.argmin))
        red, _, blue = page.evaluate(colour, [int(high[0]), int(high[1])])
        assert blue > red + 40
        light = page.evaluate(colour, [int(low[0]), int(low[1])])
        assert light[0] > light[2]
        page.click("#theme")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"
        assert page.evaluate(colour, [int(low[0]), int(low[1])]) != light
        opened.check_quiet()


def test_the_keyboard_reaches_every_mark(browser, pages):
    with Opened(browser, pages["full"], WIDE) as opened:
        page = opened.page
        chart = next(one for one in page.query_selector_all("#deltas svg.chart") if one.is_visible())
        chart.focus()
        seen = []
        for _ in range(3):
            page.keyboard.press("ArrowRight")
            seen.append(page.inner_text("#tip").split("\n")[0].split(",")[0])
        assert seen == ["layer 0", "layer 1", "layer 2"]
        page.keyboard.press("Escape")
        assert page.is_hidden("#tip")
        page.query_selector(".strip").focus()
        page.keyboard.press("ArrowLeft")
        assert page.inner_text("#tip").startswith("layer 35: ")
        next(one for one in page.query_selector_all("#examples svg.chart") if one.is_visible()).focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowRight")
        assert "layer 1: " in page.inner_text("#tip")
        assert page.get_attribute("#tip", "aria-live") == "polite"
        opened.check_quiet()


def test_tables_are_copied_in_full_precision(browser, pages):
    with Opened(browser, pages["run"], WIDE) as opened:
        page = opened.page
        page.click("#ranking .copy")
        page.wait_for_function("document.querySelector('#ranking .copy').textContent === 'Copied'")
        rows = list(csv.DictReader(io.StringIO(page.evaluate("navigator.clipboard.readText()"))))
        with h5py.File(pages["work"] / "run/results.h5") as file:
            means, rank = file["ranking/mean_delta_nll"][:], file["ranking/rank"][:]
        assert [int(row["rank"]) for row in rows] == list(range(1, 9))
        for row in rows:
            assert (
                float(row["mean delta NLL"]) == means[int(row["layer"])] and int(row["rank"]) == rank[int(row["layer"])]
            )
        opened.check_quiet()


def test_token_view_shows_the_chosen_example(browser, pages):
    with h5py.File(pages["work"] / "run/results.h5") as file:
        ids = [text.decode() for text in file["calibration/example_id"][:]]
        delta = file["calibration/token_nll"][:].astype(float) - file["calibration/token_nll_base"][:][:, None, :]
        first = int(np.argmin(file["ranking/rank"][:]))
    with h5py.File(pages["work"] / "long.h5") as file:
        starts = file["offsets"][:-1] + file["answer_start"][:]
        tokens = file["tokens"][:][starts]
        words = {name: WORDS[token] for name, token in zip(file["example_id"].asstr()[:], tokens, strict=True)}
    with Opened(browser, pages["run"], WIDE) as opened:
        page = opened.page
        for example in (ids[0], ids[-1]):
            page.select_option("#tokens select", label=example)
            next(one for one in page.query_selector_all("#tokens svg.chart") if one.is_visible()).focus()
            page.keyboard.press("ArrowDown")
            lines = page.inner_text("#tip").split("\n")
            assert lines[0] == f"layer {first}" and lines[2] == f"example {example}"
            shown = re.fullmatch(rf'answer token 1 "{words[example]}": delta NLL (\S+) nats', lines[1]).group(1)
            shown = shown.replace("\u2212", "-")
            np.testing.assert_allclose(float(shown), delta[ids.index(example), first, 0], rtol=6e-3, atol=1e-7)
            page.reload()
        opened.requests = opened.requests[:1]
        opened.check_quiet()


@pytest.mark.parametrize("name", ["full", "evaluation", "search", "plans", "types"])
def test_paper_is_light_and_nothing_is_cut(browser, pages, name):
    paper = 688  # pixels of A4 between margins of 14 mm
    colours = """window.dispatchEvent(new Event('beforeprint')),
        [...document.querySelectorAll('image.matrix')].map(image => image.getAttribute('href'))"""
    heat_maps = []
    for scheme in ("light", "dark"):
        with Opened(browser, pages[name], paper, scheme) as opened:
            page = opened.page
            page.emulate_media(media="print", color_scheme=scheme)
            heat_maps.append(page.evaluate(colours))
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
            assert page.evaluate("document.documentElement.scrollWidth") <= paper
            cut = page.evaluate("""[...document.querySelectorAll('table, svg.chart, p')].filter(one => {
                const box = one.getBoundingClientRect(); return box.width && box.right > innerWidth + 1; }).length""")
            assert cut == 0
            assert page.is_hidden("#theme") and page.query_selector_all("svg.chart") != []
            opened.check_quiet()
    assert heat_maps[0] == heat_maps[1]

"""winnow report: the command line, the numbers in the page, and files that are odd or damaged."""

import base64
import contextlib
import csv
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import xml.dom.minidom

import h5py
import launch
import numpy as np
import pytest
import result_files
import xarray as xr
from report_pages import DONE, Page, codes_of_damage, damage, page_of, report

import winnow.report as winnow_report
from winnow.report import agreement, wording
from winnow.report.figures import sentences
from winnow.report.reading import opening, record

USAGE, BAD_DATA, NO_INPUT, CANNOT_CREATE = 64, 65, 66, 73
MOST_BYTES = 6 * 2**20


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    directory = tmp_path_factory.mktemp("report")
    result_files.write(directory / "results.h5")
    return directory


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The made-up result that winnow's own code writes: two controls, undefined figures, per-token NLL."""
    file = tmp_path_factory.mktemp("written") / "results.h5"
    subprocess.run([launch.WINNOW.parent / "write_example_results", file, file.with_name("evaluation.h5")], check=True)
    return file


# ---- opening --------------------------------------------------------------------------------------------------------


def test_open_gives_the_documented_tree(written):
    with winnow_report.open(written) as run, h5py.File(written) as file:
        assert isinstance(run, xr.DataTree)
        np.testing.assert_array_equal(run["ranking"].mean_delta_nll, file["ranking/mean_delta_nll"][:])
        np.testing.assert_array_equal(run["calibration"].layer, file["calibration/layer"][:])
        assert set(run["control"].children) == set(file["control"])
    with winnow_report.open(written.parent) as run:  # the run directory does as well
        assert run.attrs["format"] == "winnow-results"


def test_the_example_of_the_document_runs(work, tmp_path, monkeypatch):
    text = (launch.REPOSITORY / "results/README.md").read_text()
    code = re.search(r"```python\n(import winnow\.report\n.*?)```", text, re.DOTALL).group(1)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(work, tmp_path / "RUN_DIR")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "results/README.md", "exec"), {})
    with h5py.File(work / "results.h5") as file:
        first = int(np.argmin(file["ranking/rank"][:]))
        p = file["ranking/p_top_k"][1, first]
        share = (file["calibration/delta_nll"][:, first] > 0).mean()
    lines = out.getvalue().splitlines()
    assert lines[1].split()[0] == str(first) and f"{p:.2f}" in out.getvalue()
    assert lines[-1] == f"layer {first} costs something in {share:.0%} of the examples"


# ---- the numbers ----------------------------------------------------------------------------------------------------


def test_numbers_in_the_page_are_those_of_the_file(work, tmp_path):
    page = Page(page_of(work, tmp_path))
    with h5py.File(work / "results.h5") as file:
        ranking = {name: file["ranking"][name][:] for name in file["ranking"]}
        delta = file["calibration/delta_nll"][:]
        ids = [text.decode() for text in file["calibration/example_id"][:]]
        facts = {name: file["provenance"][name][()] for name in file["provenance"]}
    columns, *rows = page.tables["ranking"]
    names = [cell[0] for cell in columns]
    assert len(rows) == len(ranking["rank"])
    for row in rows:
        values = {name: cell[1] for name, cell in zip(names, row, strict=True)}
        i = int(values["layer"])
        assert int(values["rank"]) == ranking["rank"][i]
        for name, variable in (
            ("mean delta NLL", "mean_delta_nll"),
            ("low", "ci_low"),
            ("high", "ci_high"),
            ("median", "median_delta_nll"),
            ("rank high", "rank_high"),
        ):
            assert float(values[name]) == ranking[variable][i]
        for k, p in zip(ranking["budget"], ranking["p_top_k"][:, i], strict=True):
            assert float(values[f"P(top {k})"]) == p
        shown = row[names.index("mean delta NLL")][0].replace("\u2212", "-")
        np.testing.assert_allclose(float(shown), ranking["mean_delta_nll"][i], rtol=6e-3)
    text = (tmp_path / "page.html").read_text()
    heat = next(
        spec
        for spec in map(json.loads, re.findall(r'class="matrix-data">(.*?)</script>', text))
        if spec["id"].startswith("heat")
    )
    sheet = heat["sheets"][0]
    values = np.frombuffer(base64.b64decode(sheet["data"]), "<f4").reshape(len(sheet["rows"]), -1)
    np.testing.assert_array_equal(values, delta.astype("<f4"))
    assert sheet["rows"] == ids
    assert all(sorted(order["rows"]) == list(range(len(ids))) for order in heat["orders"])
    for name, value in facts.items():
        assert name in text and (value.decode() if isinstance(value, bytes) else str(value)) in text


def test_the_answer_is_the_top_of_the_ranking(work, tmp_path):
    text = page_of(work, tmp_path)
    with h5py.File(work / "results.h5") as file:
        rank, budgets = file["ranking/rank"][:], file["ranking/budget"][:]
    for k in budgets:
        layers = ",".join(str(layer) for layer in np.flatnonzero(rank <= k))
        assert re.search(rf'data-budget="{k}".*', text) and f'data-copy="{layers}"' in text


def test_spearman_is_that_of_its_definition():
    random = np.random.default_rng(1)
    a, b = random.integers(0, 5, 20).astype(float), random.integers(0, 5, 20).astype(float)

    def slow_ranks(values):
        return [1 + sum(w < v for w in values) + (sum(w == v for w in values) - 1) / 2 for v in values]

    assert agreement.spearman(a, b) == pytest.approx(np.corrcoef(slow_ranks(a), slow_ranks(b))[0, 1], abs=1e-12)
    assert np.isnan(agreement.spearman(a, np.ones(20)))
    assert agreement.jaccard({1, 2, 3}, {2, 3, 4}) == 0.5


def test_stability_compares_the_first_examples_with_all():
    random = np.random.default_rng(2)
    delta = random.normal(0, 1, (64, 10)) + np.arange(10)[::-1]
    found = agreement.stability(delta, 3)
    assert found.sizes == [8, 16, 32, 64]
    for i, size in enumerate(found.sizes):
        means = delta[:size].mean(0)
        assert found.rho[i] == pytest.approx(float(agreement.spearman(means, delta.mean(0))))
        assert found.shared[i] == len(agreement.top(means, 3) & agreement.top(delta.mean(0), 3))
        assert found.ranks[i, np.argmax(means)] == 1
    assert found.rho[-1] == 1 and found.shared[-1] == 3
    assert agreement.sizes_up_to(5) == [1, 2, 4, 5] and agreement.stability(delta[:1], 3) is None


def run_of(path):
    tree = winnow_report.open(path)
    return record.read_run(tree, path)


def test_readings_say_when_the_evidence_is_not_enough(work):
    run = run_of(work / "results.h5")
    k, order = run.top_k, run.order()
    last, first = order[k - 1], order[k]
    run.figures["ci_low"][last], run.figures["ci_high"][first] = 0.1, 0.2
    run.p_top_k[k][last], run.p_top_k[k][first] = 0.6, 0.4
    assert "not enough evidence" in sentences.border(run, k)
    assert f"layer {run.layers[last]} (60" in sentences.certainty(run, sentences.choose(run, k))
    run.figures["ci_low"][last] = 0.3
    assert "the border is clear" in sentences.border(run, k)
    run.controls["short"].figures |= {"spearman_ci_low": -0.2, "spearman_ci_high": 0.8}
    assert "not enough evidence" in sentences.control(run, "short")
    run.controls["short"].figures |= {"spearman_ci_low": 0.7, "spearman_ci_high": 0.9}
    assert "matter for short prompts, too" in sentences.control(run, "short")


def test_numbers_in_words():
    assert wording.ranges([5, 1, 4, 6, 9]) == "1, 4\u20136, 9"
    assert wording.number(-0.000468) == "\u22120.000468" and wording.number(2.26e-5) == "2.26e\u22125"
    assert wording.percent(0.9996) == "> 99\u00a0%" and wording.percent(0.0001) == "< 1\u00a0%"
    assert wording.number(float("nan")) == "n/a" and wording.number(1413.2) == "1,413"


# ---- odd and damaged files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n,n_layers", [(1, 12), (1, 1), (8, 1), (2, 3), (3, 96)])
def test_small_results_give_a_page(tmp_path, n, n_layers):
    result_files.write(tmp_path / "results.h5", n, n_layers)
    text = page_of(tmp_path, tmp_path)
    assert 'id="deltas"' in text and ("One example" in text) == (n == 1)


def _without(*names):
    def change(file):
        for name in names:
            del file[name]

    return change


def _not_finite(file):
    file["calibration/delta_nll"][3, 2] = np.inf
    file["calibration/delta_nll"][5, :] = np.nan
    file["ranking/mean_delta_nll"][2] = np.nan
    file["deconfounding/short/spearman_rho"][...] = np.nan
    file["deconfounding/short/spearman_rho"].attrs["status"] = "the same in all <layers>"


def _odd_shapes(file):
    del file["ranking/ci_low"], file["ranking/rank"]
    file["ranking"]["ci_low"] = np.zeros(5)
    file["ranking"]["rank"] = np.full(12, 1.5)
    file["ranking"].attrs["top_k"] = "many"


def _constant(file):
    for name in ("calibration/delta_nll", "ranking/mean_delta_nll", "ranking/ci_low", "ranking/ci_high"):
        file[name][...] = 0


def _huge(file):
    file["ranking/mean_delta_nll"][0] = file["calibration/delta_nll"][0, 0] = 1e300


@pytest.mark.parametrize(
    "change,words",
    [
        (_without("ranking"), "The file has no ranking"),
        (_without("calibration"), "no table per example"),
        (_without("control"), "Long prompts against"),
        (_without("provenance", "deconfounding", "control"), "no control set"),
        (_not_finite, "2 examples with values that are not finite"),
        (_odd_shapes, "are no order of its layers"),
        (_constant, "The answer"),
        (_huge, "1.00e300"),
        (lambda file: file.attrs.__setitem__("format_version", np.int64(0)), "older than this program"),
    ],
    ids=["ranking", "calibration", "control", "provenance", "nan", "shapes", "constant", "huge", "older"],
)
def test_odd_files_give_a_page_that_says_so(work, tmp_path, change, words):
    text = page_of(damage(work / "results.h5", tmp_path / "odd.h5", change), tmp_path)
    assert words in text
    assert "&lt;layers&gt;" in text or change is not _not_finite


def test_text_of_the_file_is_escaped(tmp_path):
    ids = [
        "</script><script>alert(1)</script>",
        "<img src=x onerror=alert(2)>",
        "tab\t\x01\x1b[31m",
        "x" * 3000,
        "<!--",
    ]
    result_files.write(tmp_path / "results.h5", 5, 12, ids=ids, model="/m/<script>alert(3)</script>")
    text = page_of(tmp_path, tmp_path)
    assert "alert(1)" in text and "alert(3)" in text
    assert not re.search(r"<script>alert|<img src=x|\x01|\x1b|<!--", text.replace("<!DOCTYPE", ""))


@pytest.mark.parametrize(
    "make,code,words",
    [
        (lambda f, data: f.write_bytes(data[: len(data) // 2]), BAD_DATA, "damaged or cut short"),
        (lambda f, data: f.write_bytes(b""), BAD_DATA, "empty"),
        (lambda f, data: f.write_text("hello"), BAD_DATA, "not an HDF5 file"),
        (lambda f, data: h5py.File(f, "w").close(), BAD_DATA, "another kind"),
        (lambda f, data: shutil.copy(launch.REPOSITORY / "tests/demo/long.h5", f), BAD_DATA, "winnow-calibration"),
        (lambda f, data: f.mkdir(), NO_INPUT, "neither results.h5 nor collected.h5"),
        (lambda f, data: (f.mkdir(), (f / "run.json").write_text("{}")), NO_INPUT, "not finished"),
        (lambda f, data: None, NO_INPUT, "no such file"),
    ],
    ids=["cut", "empty", "text", "other", "calibration", "directory", "unfinished", "missing"],
)
def test_what_is_no_result_is_refused_in_one_line(work, tmp_path, make, code, words):
    make(tmp_path / "bad", (work / "results.h5").read_bytes())
    got, _, err = report(tmp_path / "bad", "--out", tmp_path / "page.html")
    assert got == code and words in err and str(tmp_path / "bad") in err and "delete" not in err
    assert not (tmp_path / "page.html").exists()


def test_a_newer_version_is_refused(work, tmp_path):
    newer = damage(
        work / "results.h5", tmp_path / "new.h5", lambda f: f.attrs.__setitem__("format_version", np.int64(2))
    )
    code, _, err = report(newer, "--out", tmp_path / "page.html")
    assert code == BAD_DATA and "format version 2" in err


def test_any_damaged_byte_gives_a_page_or_one_line(work, tmp_path):
    codes = codes_of_damage(work / "results.h5", 12, 60, tmp_path)
    assert codes <= {DONE, BAD_DATA} and BAD_DATA in codes


def test_a_page_stays_within_its_size(tmp_path):
    result_files.write(tmp_path / "results.h5", 6000, 96)
    text = page_of(tmp_path, tmp_path)
    assert len(text.encode()) <= MOST_BYTES and "examples are shown, evenly spaced" in text


# ---- several results, further data, files of figures ----------------------------------------------------------------


def test_several_results_are_compared(tmp_path):
    deltas = []
    for i, window in enumerate((1024, 2048)):
        deltas.append(result_files.write(tmp_path / f"r{i}.h5", seed=i, window=window).mean(0))
    result_files.write(tmp_path / "other.h5", n_layers=6, model="/models/Other")
    code, out, err = report(
        *(tmp_path / name for name in ("r0.h5", "r1.h5", "other.h5")), "--out", tmp_path / "page.html"
    )
    assert code == DONE and "3 results" in out, err
    page = Page((tmp_path / "page.html").read_text())
    _, row = page.tables["agreement-0"]
    assert "window 1024" in row[0][0] and "window 2048" in row[1][0] and row[4][0] == "window"
    assert float(row[2][1]) == pytest.approx(float(agreement.spearman(*deltas)), abs=1e-12)
    assert float(row[3][1]) == agreement.jaccard(*(agreement.top(delta, 3) for delta in deltas))
    assert "One result is over these layers" in (tmp_path / "page.html").read_text()


def test_figures_become_files(work, tmp_path):
    for kind, signature in (("svg", b"<svg "), ("png", b"\x89PNG")):
        code, _, err = report(work, "--out", tmp_path / "page.html", "--figures", tmp_path / kind, "--format", kind)
        assert code == DONE, err
        files = sorted((tmp_path / kind).iterdir())
        assert {"deltas-by-layer", "certainty-by-rank", "examples", "control-0", "stability-ranks"} <= {
            f.stem for f in files
        }
        for file in files:
            data = file.read_bytes()
            assert data.startswith(signature) and len(data) > 1500
            if kind == "svg":
                assert b"var(--" not in data and b"data-tip" not in data
                assert b"data:image" in data or data.count(b"<path ") > 3
                assert xml.dom.minidom.parseString(data)


def test_usage(work, tmp_path):
    assert report()[0] == USAGE
    assert report(work, "--format", "svg", "--out", tmp_path / "p.html")[0] == USAGE
    assert report(work, "--out", tmp_path)[0] == USAGE
    assert report(work / "results.h5", "--out", work / "results.h5")[0] == USAGE
    assert report(work, "--out", tmp_path / "no" / "such" / "page.html")[0] == CANNOT_CREATE
    assert list(tmp_path.iterdir()) == []


def test_winnow_report_starts_it(work, tmp_path):
    done = subprocess.run(
        [launch.WINNOW, "report", work, "--out", tmp_path / "page.html"],
        capture_output=True,
        text=True,
        env=os.environ | {"WINNOW_PYTHON": sys.executable},
    )
    assert done.returncode == DONE, done.stderr
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")
    help_text = subprocess.run(
        [launch.WINNOW, "report", "--help"],
        capture_output=True,
        text=True,
        env=os.environ | {"WINNOW_PYTHON": sys.executable},
    ).stdout
    assert "--figures" in help_text and "Example:" in help_text


def test_versions_agree():
    text = subprocess.run([launch.WINNOW, "--version"], capture_output=True, text=True).stdout
    assert winnow_report.__version__ in text
    assert opening.FORMAT_VERSION == 1 and pathlib.Path(winnow_report.__file__).parent.name == "report"


def test_the_former_name_of_the_package_is_still_one():
    code = "import winnow_report as r, winnow.report; assert r is winnow.report; print(callable(r.open))"
    environment = os.environ | {"PYTHONPATH": str(launch.REPOSITORY / "python")}
    for words, said in (
        (["-c", code], "True"),
        (["-m", "winnow_report", "--version"], "winnow-report "),
    ):
        done = subprocess.run([sys.executable, "-P", *words], env=environment, capture_output=True, text=True)
        assert done.returncode == DONE and done.stdout.startswith(said), done.stderr


def test_csv_of_exact_values_reads_back():
    values = [0.1, -2.5e-17, 3, float("nan")]
    text = ",".join(wording.exact(value) for value in values)
    back = next(csv.reader([text]))
    assert [float(word) if word else None for word in back[:3]] == values[:3] and back[3] == ""


# ---- a collected sweep ----------------------------------------------------------------------------------------------


def write_collection(path, n_cells, n_layers, states=()):
    """A collected sweep with what the report reads of it; cells of `states` have no results."""
    random = np.random.default_rng(0)
    means = random.gamma(1, 1, (n_cells, n_layers))
    means[n_cells - len(states) :] = np.nan
    text = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        file.attrs["format"], file.attrs["format_version"] = "winnow-collection", np.int64(1)
        file.create_dataset("cell", data=[f"cell-{i}" for i in range(n_cells)], dtype=text).make_scale("cell")
        file.create_dataset("layer", data=np.arange(n_layers)).make_scale("layer")
        state = ["done"] * (n_cells - len(states)) + list(states)
        columns = {
            "model": ["m"] * n_cells,
            "dataset": ["d"] * n_cells,
            "state": state,
            "reason": ["" if s == "done" else "the node went down" for s in state],
        }
        for name, values in columns.items():
            file.create_dataset(name, data=values, dtype=text).dims[0].attach_scale(file["cell"])
        file["window"] = 1024 * (1 + np.arange(n_cells))
        file["window"].dims[0].attach_scale(file["cell"])
        file["mean_delta_nll"] = means
        for axis, dim in enumerate(("cell", "layer")):
            file["mean_delta_nll"].dims[axis].attach_scale(file[dim])
    return means


def test_a_collected_sweep_is_reported_cell_by_cell(tmp_path):
    means = write_collection(tmp_path / "collected.h5", 5, 8, ["failed"])
    text = page_of(tmp_path, tmp_path)
    page = Page(text)
    assert "4 results" in text and "the node went down" in text
    _, *rows = page.tables["agreement-0"]
    assert len(rows) == 6 and all(row[4][0] == "window" for row in rows)
    assert float(rows[0][2][1]) == pytest.approx(float(agreement.spearman(means[0], means[1])), abs=1e-12)


def test_agreement_and_provenance_of_cells_are_those_of_the_file(tmp_path):
    means = write_collection(tmp_path / "collected.h5", 3, 8)
    with h5py.File(tmp_path / "collected.h5", "a") as file:
        group, names = file.create_group("agreement"), [f"cell-{i}" for i in range(3)]
        for name in ("cell", "other_cell"):
            group.create_dataset(name, data=names, dtype=h5py.string_dtype()).make_scale(name)
        group["spearman_rho"] = np.array([[1, 0.25, np.nan], [0.25, 1, 0.5], [np.nan, 0.5, 1]])
        group["jaccard"] = np.array([[1, 0.125, np.nan], [0.125, 1, 0.75], [np.nan, 0.75, 1]])
        for table in ("spearman_rho", "jaccard"):
            for axis, name in enumerate(("cell", "other_cell")):
                group[table].dims[axis].attach_scale(group[name])
        facts = file.create_group("provenance")
        facts.create_dataset("cell", data=names, dtype=h5py.string_dtype()).make_scale("cell")
        facts.create_dataset("host_name", data=["node-a", "node-b", "node-c"], dtype=h5py.string_dtype())
        facts["host_name"].dims[0].attach_scale(facts["cell"])
    text = page_of(tmp_path, tmp_path)
    assert all(f'<td data-v="node-{letter}">' in text for letter in "abc")
    _, *rows = Page(text).tables["agreement-0"]
    found = [(float(row[2][1]), float(row[3][1])) for row in rows]
    assert found[0] == (0.25, 0.125) and found[2] == (0.5, 0.75)
    assert found[1][0] == pytest.approx(float(agreement.spearman(means[0], means[2])), abs=1e-12)  # the file has none


def test_a_sweep_without_results_says_so(tmp_path):
    write_collection(tmp_path / "collected.h5", 2, 8, ["failed", "waiting"])
    code, _, err = report(tmp_path, "--out", tmp_path / "page.html")
    assert code == NO_INPUT and "no cell has results yet" in err


def test_a_large_sweep_stays_within_its_size(tmp_path):
    write_collection(tmp_path / "collected.h5", 600, 48)
    text = page_of(tmp_path, tmp_path)
    assert len(text.encode()) <= MOST_BYTES and "of 600 are compared" in text


def test_six_large_results_stay_within_the_size(tmp_path):
    for i in range(6):
        result_files.write(tmp_path / f"r{i}.h5", 1000, 48, seed=i)
    code, _, err = report(*(tmp_path / f"r{i}.h5" for i in range(6)), "--out", tmp_path / "page.html")
    assert code == DONE, err
    assert (tmp_path / "page.html").stat().st_size <= MOST_BYTES

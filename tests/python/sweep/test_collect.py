"""winnow sweep collect: one file over all cells, against the single results, the document and an own computation."""

import contextlib
import functools
import io
import json
import os
import pathlib
import re
import shutil

import h5py
import launch
import manual_tables
import numpy as np
import pytest
import tiny
import xarray as xr

CANNOT_CREATE = 73
MODELS = {"small": 8, "large": 10}  # layers
GROUPS = ["/", "/agreement", "/provenance"]
CELL_COORDINATES = ["model", "dataset", "window", "window_keys", "sinks", "decode", "target", "seed"]
SWEEP = """
name: night
output: "{output}"
models:
  - {{name: small, path: "{work}/small"}}
  - {{name: large, path: "{work}/large"}}
datasets:
  - {{name: long, data: "{work}/long.h5", controls: {{short: "{work}/short.h5"}}}}
  - {{name: code, data: "{work}/code.h5"}}
windows: {windows}
seeds: [0, 3]
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Models, data, and an output directory in which the cells of windows 8 and 16 are finished."""
    directory = tmp_path_factory.mktemp("collect")
    for name, layers in MODELS.items():
        tiny.write_checkpoint(directory / name, layers=layers, seed=layers)
    tiny.write_calibration(directory / "long.h5", [60, 50, 70, 40])
    tiny.write_calibration(directory / "short.h5", [20, 24, 22, 21], prefix="short")
    tiny.write_calibration(directory / "code.h5", [44, 52, 30], seed=5, prefix="code")
    file = write_sweep(directory, directory / "out", [8, 16])
    done = winnow(directory, "sweep", "submit", file, "--executor", "local")
    assert done.returncode == 0, done.stderr
    return directory


def write_sweep(work, output, windows, name="night.yaml"):
    file = work / name
    file.write_text(SWEEP.format(work=work, output=output, windows=windows))
    return file


def winnow(work, *arguments):
    return launch.run(arguments, work / "cache")


def collect(work, file, out, *more):
    done = winnow(work, "sweep", "collect", file, "--out", out, *more)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def collected(work):
    collect(work, work / "night.yaml", work / "collected.h5")
    return work / "collected.h5"


@pytest.fixture(scope="module")
def partial(work):
    """(file, JSON): windows 8, 16 and, never started, 32; one result is damaged, one of another version, one of another
    seed."""
    output = work / "partial"
    shutil.copytree(work / "out", output)
    file = write_sweep(work, output, [8, 16, 32], "partial.yaml")
    with xr.open_dataset(work / "collected.h5", engine="h5netcdf") as whole:
        names = list(whole.cell.values)
    seeded = [name for name in names if "/seeds/" in name]
    (output / "runs" / names[0] / "results.h5").write_bytes(b"this was a result")
    with h5py.File(output / "runs" / names[2] / "results.h5", "a") as damaged:
        damaged.attrs["format_version"] = np.int64(99)
    shutil.copy(output / "runs" / names[4] / "results.h5", output / "runs" / seeded[2] / "results.h5")
    done = collect(work, file, output / "collected.h5", "--json")
    return output / "collected.h5", json.loads(done.stdout), [names[0], names[2], seeded[2]]


# ---- against the single results
# ----------------------------------------------------------------------------------------------------------------


@functools.cache
def results_of(work, label):
    """In memory: several tests look at each, and opening one takes longer than all that they do with it."""
    with xr.open_datatree(work / "out" / "runs" / label / "results.h5", engine="h5netcdf") as tree:
        return tree.load()


def test_every_cell_and_seed_is_a_row(work, collected):
    with xr.open_dataset(collected, engine="h5netcdf") as cells:
        assert cells.sizes["cell"] == 2 * 2 * 2 * 2
        assert set(cells.state.values) == {"done"} and set(cells.reason.values) == {""}
        rows = set(zip(cells.model.values, cells.dataset.values, cells.window.values, cells.seed.values, strict=True))
        assert rows == {(m, d, w, s) for m in MODELS for d in ["long", "code"] for w in [8, 16] for s in [0, 3]}
        assert len(set(cells.name.values)) == 8 and len(set(cells.cell.values)) == 16
        for label, name, directory in zip(
            cells.cell.values, cells["name"].values, cells.run_directory.values, strict=True
        ):
            assert label.split("/")[0] == name
            assert pathlib.Path(directory) == work / "out" / "runs" / name
        np.testing.assert_array_equal(cells.layer, np.arange(max(MODELS.values())))
        np.testing.assert_array_equal(cells.budget, [1, 2, 4, 5])
        assert list(cells.control.values) == ["short"]
        assert cells.attrs["sweep"] == "night" and cells.attrs["format"] == "winnow-collection"


def test_figures_are_those_of_the_results_bit_for_bit(work, collected):
    with xr.open_dataset(collected, engine="h5netcdf") as cells:
        by_layer = [name for name, variable in cells.variables.items() if variable.dims == ("cell", "layer")]
        assert len(by_layer) == 10
        for label in cells.cell.values:
            row = cells.sel(cell=label)
            with results_of(work, label) as single:
                ranking = single["ranking"].to_dataset()
                assert ranking.attrs["seed"] == row.seed and ranking.attrs["top_k"] == row.top_k
                for name in by_layer:
                    np.testing.assert_array_equal(row[name].sel(layer=ranking.layer), ranking[name], err_msg=name)
                    assert int(row[name].notnull().sum()) == MODELS[str(row.model.values)]
                p = row.p_top_k.sel(budget=ranking.budget, layer=ranking.layer)
                np.testing.assert_array_equal(p, ranking.p_top_k)
                assert int(row.p_top_k.notnull().sum()) == ranking.p_top_k.size
                reliability = single["reliability"].to_dataset()
                for name in reliability:
                    np.testing.assert_array_equal(row[name], reliability[name], err_msg=name)
                calibration = single["calibration"].to_dataset()
                assert row.n_examples == calibration.sizes["example"] and row.n_layers == calibration.sizes["layer"]
                for name in ["nll_base", "exact_match_base", "token_accuracy_base"]:
                    np.testing.assert_allclose(row[name], calibration[name].mean(), rtol=1e-14)


def test_deconfounding_is_there_for_each_control(work, collected):
    with xr.open_dataset(collected, engine="h5netcdf") as cells:
        names = [name for name, variable in cells.variables.items() if variable.dims == ("cell", "control")]
        assert len(names) == 9
        for label in cells.cell.values:
            row = cells.sel(cell=label, control="short")
            with results_of(work, label) as single:
                if row.dataset == "code":
                    assert "short" not in single["deconfounding"].children
                    assert np.isnan(row.spearman_rho) and row.control_sha256 == ""
                    continue
                figures = single["deconfounding/short"].to_dataset()
                for name in figures:
                    if name != "top_k":
                        np.testing.assert_array_equal(row[name], figures[name], err_msg=name)
                assert row.control_sha256 == single["provenance"].to_dataset()["control_sha256.short"]
        assert "not a control of the cell: short" in cells.spearman_rho.attrs["status"]


def test_provenance_and_timings(work, collected):
    with (
        xr.open_dataset(collected, engine="h5netcdf", group="provenance") as provenance,
        xr.open_dataset(collected, engine="h5netcdf") as cells,
    ):
        assert list(provenance.cell.values) == list(cells.cell.values)
        for label in cells.cell.values:
            with results_of(work, label) as single:
                recorded = single["provenance"].to_dataset()
                for name in [
                    "checkpoint_sha256",
                    "data_sha256",
                    "git_revision",
                    "devices",
                    "hosts",
                    "finished",
                    "residual_dtype",
                    "ranks",
                    "tail_rows",
                ]:
                    assert provenance[name].sel(cell=label).values == recorded[name].values, name
                assert provenance.model_path.sel(cell=label) == recorded.model
                for name in ["wall_seconds", "busy_seconds", "load_seconds"]:
                    assert cells[name].sel(cell=label) == recorded[name], name
        assert len(set(provenance.checkpoint_sha256.values)) == 2
        assert (cells.wall_seconds > 0).all()


# ---- agreement, computed anew
# ----------------------------------------------------------------------------------------------------------------


def average_ranks(values):
    """1 = smallest; ties share the mean of their ranks."""
    return np.array([(np.sum(values < v) + 1 + np.sum(values <= v)) / 2 for v in values])


def own_agreement(left, right, k):
    """(Spearman's rho, Jaccard of the top k) of two columns of mean deltas."""
    a, b = average_ranks(left), average_ranks(right)
    a, b = a - a.mean(), b - b.mean()
    top = [set(np.lexsort((np.arange(len(values)), -values))[:k]) for values in (left, right)]
    return a @ b / np.sqrt((a @ a) * (b @ b)), len(top[0] & top[1]) / len(top[0] | top[1])


def test_agreement_is_that_of_an_own_computation(collected):
    n_compared = 0
    with (
        xr.open_dataset(collected, engine="h5netcdf") as cells,
        xr.open_dataset(collected, engine="h5netcdf", group="agreement") as agreement,
    ):
        assert set(CELL_COORDINATES + [f"other_{name}" for name in CELL_COORDINATES]) <= set(agreement.coords)
        rho, jaccard = agreement.spearman_rho.values, agreement.jaccard.values
        np.testing.assert_array_equal(rho, rho.T)
        np.testing.assert_array_equal(jaccard, jaccard.T)
        rows = [cells.load().isel(cell=i) for i in range(cells.sizes["cell"])]
        for i, left in enumerate(rows):
            for j, right in enumerate(rows):
                if left.model != right.model:
                    assert np.isnan(rho[i, j]) and np.isnan(jaccard[i, j])
                    assert not agreement.between_datasets[i, j] and not agreement.between_windows[i, j]
                    continue
                means = [row.mean_delta_nll.dropna("layer").values for row in (left, right)]
                expected = own_agreement(*means, int(left.top_k))
                np.testing.assert_allclose([rho[i, j], jaccard[i, j]], expected, rtol=1e-12)
                n_compared += 1
                differ = {name for name in ["dataset", "window", "seed"] if left[name] != right[name]}
                assert bool(agreement.between_datasets[i, j]) == (differ == {"dataset"})
                assert bool(agreement.between_windows[i, j]) == (differ == {"window"})
        assert n_compared == 2 * 8 * 8
        assert agreement.spearman_rho.attrs["status"] == "the cells are of different models"


# ---- the document
# ----------------------------------------------------------------------------------------------------------------


def documented(group):
    entries = dict(SCHEMA[group])
    if group == "/agreement":  # "The coordinates of / stand beside both dimensions"
        for name in CELL_COORDINATES:
            entry = SCHEMA["/"][name]
            entries |= {name: entry, f"other_{name}": entry | {"dimensions": ("other_cell",)}}
    return {name: entry for name, entry in entries.items() if entry["dimensions"] and entry["units"]}


SCHEMA = manual_tables.read_schema("Collected file")


def test_attributes_are_documented(collected):
    section = manual_tables.document_section("Collected file").split("| variable |")[0]
    attributes = set(re.findall(r"^\| `(\w+)` \| (?:string|int64) \|", section, flags=re.M))
    with h5py.File(collected) as file:
        assert set(file.attrs) == attributes
        assert file.attrs["format_version"] == 1
        groups = []
        file.visititems(lambda name, item: groups.append("/" + name) if isinstance(item, h5py.Group) else None)
    own = {group for group in groups if not group.startswith("/study")}  # test_study.py compares these
    assert {"/", *own} == set(SCHEMA) == set(GROUPS)


@pytest.mark.parametrize("group", GROUPS)
def test_variables_through_h5py(collected, group):
    entries = documented(group)
    with h5py.File(collected) as file:
        found = manual_tables.variables_of(file[group])
        assert set(found) == set(entries)
        for name, dataset in found.items():
            manual_tables.assert_as_documented(name, dataset, entries[name])
            if dataset.dtype == np.float64:
                assert np.isnan(dataset.attrs["_FillValue"]), name


@pytest.mark.parametrize("group", GROUPS)
def test_variables_through_xarray(collected, group):
    entries = documented(group)
    with xr.open_dataset(collected, engine="h5netcdf", group=group) as dataset:
        assert set(dataset.variables) == set(entries)
        assert set(dataset.indexes) == {n for n, e in entries.items() if e["dimensions"] == (n,)}
        if group == "/":
            assert set(dataset.coords) == {*CELL_COORDINATES, "cell", "layer", "budget", "control"}
        for name, variable in dataset.variables.items():
            assert variable.dims == entries[name]["dimensions"], name


def test_the_whole_file_as_a_tree(collected):
    with xr.open_datatree(collected, engine="h5netcdf") as tree:
        assert {node.path for node in tree.subtree} == {"/", "/agreement", "/provenance", "/study", "/study/examples"}
        cell = tree.to_dataset().cell.values[0]
        assert float(tree["agreement"].to_dataset().spearman_rho.sel(cell=cell, other_cell=cell)) == 1.0


def run_example(directory):
    """Runs the worked example of the document there, and returns what it prints."""
    example = re.search(r"```python\n(.*?)```", manual_tables.document_section("Collected file"), flags=re.S).group(1)
    before = pathlib.Path.cwd()
    os.chdir(directory)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as text:
            exec(compile(example, "results/README.md", "exec"), {})
    finally:
        os.chdir(before)
    return text.getvalue()


def test_the_worked_example_runs(collected, partial):
    assert run_example(collected.parent).count("small long [") == 4
    file, _, unusable = partial
    text = run_example(file.parent)
    assert text.count("waiting was never started") == 8
    for label in unusable:
        assert f"{label} unusable " in text


# ---- cells without results
# ----------------------------------------------------------------------------------------------------------------


def test_cells_without_results_are_listed_with_the_reason(partial):
    file, printed, unusable = partial
    with xr.open_dataset(file, engine="h5netcdf") as cells:
        state = dict(zip(cells.cell.values, cells.state.values, strict=True))
        reason = dict(zip(cells.cell.values, cells.reason.values, strict=True))
        assert {label for label, value in state.items() if value == "unusable"} == set(unusable)
        assert "is not an HDF5 file" in reason[unusable[0]]
        assert "format_version: expected 1, found 99" in reason[unusable[1]]
        assert "has seed 0, but the sweep asks for 3" in reason[unusable[2]]
        assert all("remove it and submit again" in reason[label] for label in unusable)
        waiting = cells.sel(cell=cells.state == "waiting")
        assert set(waiting.window.values) == {32} and waiting.sizes["cell"] == 8
        assert set(waiting.window_keys.values) == {32}
        absent = cells.sel(cell=cells.state != "done")
        for name, variable in absent.data_vars.items():
            if variable.dtype.kind == "f":
                assert np.isnan(variable).all(), name
                assert "the cell has no results (see state and reason)" in variable.attrs["status"], name
        done = cells.sel(cell=cells.state == "done")
        assert done.sizes["cell"] == 13 and done.mean_delta_nll.notnull().any("layer").all()
    with xr.open_dataset(file, engine="h5netcdf", group="agreement") as agreement:
        rho = agreement.spearman_rho.sel(cell=unusable[0])
        assert np.isnan(rho).all()
        assert "a cell has no results (see state and reason)" in rho.attrs["status"]
    by_label = {cell["cell"]: cell for cell in printed["cells"]}
    assert {label: cell["state"] for label, cell in by_label.items()} == state
    assert all((cell["results"] is None) == (cell["state"] != "done") for cell in by_label.values())
    assert printed["file"] == str(file)


def test_an_unusable_result_is_made_anew(work, partial, tmp_path):
    file, _, unusable = partial
    output = tmp_path / "out"
    shutil.copytree(file.parent, output)
    for label in unusable:
        (output / "runs" / label / "results.h5").unlink()
    sweep = write_sweep(work, output, [8, 16], "anew.yaml")
    done = winnow(work, "sweep", "submit", sweep, "--executor", "local")
    assert done.returncode == 0, done.stderr
    collect(work, sweep, tmp_path / "anew.h5")
    with (
        xr.open_dataset(tmp_path / "anew.h5", engine="h5netcdf") as anew,
        xr.open_dataset(work / "collected.h5", engine="h5netcdf") as before,
    ):
        assert set(anew.state.values) == {"done"}
        np.testing.assert_array_equal(anew.p_top_k, before.p_top_k)


def test_no_nan_without_a_reason(partial):
    """Beyond padding: a NaN on a layer or a budget that the cell has."""
    with xr.open_dataset(partial[0], engine="h5netcdf") as cells:
        done = cells.sel(cell=cells.state == "done")
        for name, variable in done.data_vars.items():
            if variable.dtype.kind != "f" or "layer" in variable.dims:
                continue
            assert not np.isnan(variable).any() or "status" in variable.attrs, name


def test_a_sweep_that_was_never_started(work, tmp_path):
    (tmp_path / "out").mkdir()
    file = write_sweep(work, tmp_path / "out", [8], "never.yaml")
    done = collect(work, file, tmp_path / "none.h5")
    assert "8 of 8 without results" in done.stdout
    with xr.open_datatree(tmp_path / "none.h5", engine="h5netcdf") as tree:
        cells = tree.to_dataset()
        assert dict(cells.sizes) == {"cell": 8, "layer": 0, "budget": 0, "control": 0}
        assert set(cells.state.values) == {"waiting"} and np.isnan(cells.nll_base).all()
        assert np.isnan(tree["agreement/spearman_rho"]).all()


# ---- the terminal
# ----------------------------------------------------------------------------------------------------------------


def test_the_table_has_one_line_a_cell(work):
    done = winnow(work, "sweep", "collect", work / "night.yaml")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["model", "dataset", "window", "sinks", "seed", "state", "keep", "full", "rho", "short"]
    row = re.compile(r"(small|large) +(long|code) +(8|16) +0 +[03] +done +\d+,\d+ ")
    assert sum(row.match(line) is not None for line in lines) == 16
    assert re.search(r"small, between datasets \(4 pairs\): rho -?\d\.\d{3} \(", done.stdout)
    assert lines[-1] == f"Written: {work / 'out' / 'night.h5'}"
    assert (work / "out" / "night.h5").exists()


def test_a_file_that_cannot_be_written_is_refused(work, tmp_path):
    done = winnow(work, "sweep", "collect", work / "night.yaml", "--out", tmp_path / "absent" / "x.h5")
    assert done.returncode == CANNOT_CREATE, done.stderr
    assert len(launch.error_lines(done.stderr)) == 1
    assert not (tmp_path / "absent").exists()


def test_the_same_results_give_the_same_file(work, collected, tmp_path):
    collect(work, work / "night.yaml", tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == collected.read_bytes()
    assert not list(tmp_path.glob("*.part"))

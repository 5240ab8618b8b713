"""The schema in results/README.md against a real results file, in both directions, through h5py and xarray."""

import re
import subprocess

import h5py
import launch
import numpy as np
import pytest
import xarray as xr
from manual_tables import assert_as_documented, document_section, read_schema, type_of, variables_of

BUILD = launch.WINNOW.parent
NETCDF_ATTRIBUTES = {"CLASS", "NAME", "REFERENCE_LIST", "DIMENSION_LIST"}
GROUPS = {
    "calibration": "/calibration",
    "control/short": "/control/NAME",
    "control/no-effect_0.1": "/control/NAME",
    "ranking": "/ranking",
    "deconfounding/short": "/deconfounding/NAME",
    "deconfounding/no-effect_0.1": "/deconfounding/NAME",
    "reliability": "/reliability",
    "signals": "/signals",
    "heads": "/heads",
}


SCHEMA = read_schema("Results file")
EVALUATION = read_schema("Results file of an evaluation")["/evaluation"]


@pytest.fixture(scope="module")
def result_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("schema") / "results.h5"
    subprocess.run([BUILD / "write_example_results", path, path.with_name("evaluation.h5")], check=True)
    return path


@pytest.fixture(scope="module")
def evaluation_file(result_file):
    return result_file.with_name("evaluation.h5")


def test_the_document_has_every_group():
    assert set(SCHEMA) == {"/", "/provenance", *GROUPS.values()}
    assert all(len(SCHEMA[group]) > 4 for group in SCHEMA if group != "/provenance")


def test_the_file_has_no_other_group(result_file):
    groups = []
    with h5py.File(result_file) as file:
        file.visititems(lambda name, item: groups.append(name) if isinstance(item, h5py.Group) else None)
    assert set(groups) == {*GROUPS, "control", "deconfounding", "provenance"}


def test_root_attributes(result_file):
    with h5py.File(result_file) as file:
        assert set(file.attrs) == set(SCHEMA["/"])
        assert file.attrs["format"] == "winnow-results"
        assert file.attrs["format_version"] == 1


@pytest.mark.parametrize("group", GROUPS)
def test_variables_through_h5py(result_file, group):
    documented = SCHEMA[GROUPS[group]]
    with h5py.File(result_file) as file:
        found = variables_of(file[group])
        assert set(found) <= set(documented), "not in results/README.md"
        missing = set(documented) - set(found)
        optional = {name for name, entry in documented.items() if entry["optional"]}
        assert missing <= (set() if group in {"calibration", "ranking"} else optional), (
            "in results/README.md, not in the file"
        )
        for name, dataset in found.items():
            assert_as_documented(name, dataset, documented[name])


@pytest.mark.parametrize("group", GROUPS)
def test_variables_through_xarray(result_file, group):
    documented = SCHEMA[GROUPS[group]]
    with xr.open_dataset(result_file, engine="h5netcdf", group=group) as dataset, h5py.File(result_file) as file:
        assert set(dataset.variables) == set(variables_of(file[group]))
        coordinates = {
            name
            for name, entry in documented.items()
            if entry["dimensions"] == (name,) and (name in dataset.variables or not entry["optional"])
        }
        assert set(dataset.coords) == coordinates
        for name, variable in dataset.variables.items():
            assert variable.dims == documented[name]["dimensions"], name
            if documented[name]["type"] != "string":
                assert str(variable.dtype) == documented[name]["type"], name
                np.testing.assert_array_equal(variable.values, file[group][name][()])


def test_the_whole_file_as_a_tree(result_file):
    with xr.open_datatree(result_file, engine="h5netcdf") as tree:
        assert {node.path for node in tree.leaves} == {"/" + group for group in [*GROUPS, "provenance"]}
        ranking = tree["ranking"].to_dataset().sortby("rank")
        calibration = tree["calibration"].to_dataset()
        best = int(ranking.layer[0])
        np.testing.assert_allclose(
            float(calibration.delta_nll.sel(layer=best).mean("example")), float(ranking.mean_delta_nll[0]), rtol=1e-12
        )
        assert float(ranking.mean_delta_nll.max()) == float(ranking.mean_delta_nll[0])
        sign = xr.where(calibration.layer_windowed_in_base == 1, -1.0, 1.0)
        difference = sign * (calibration.nll - calibration.nll_base)
        np.testing.assert_array_equal(difference.transpose("example", "layer").values, calibration.delta_nll.values)
        assert calibration.example_id.values[3] == "example-é-3"


def test_no_nan_without_a_status(result_file):
    n_undefined = 0
    with h5py.File(result_file) as file:
        for group in [name for name in GROUPS if not name.startswith(("calibration", "control"))]:
            for name, dataset in variables_of(file[group]).items():
                has_nan = dataset.dtype.kind == "f" and np.isnan(dataset[()]).any()
                assert has_nan == ("status" in dataset.attrs), f"{group}/{name}"
                n_undefined += has_nan
        assert "equal in all layers" in file["deconfounding/no-effect_0.1/spearman_rho"].attrs["status"]
        assert np.isnan(file["calibration/token_nll"].attrs["_FillValue"])
    assert n_undefined >= 6


def test_ranking_carries_the_settings(result_file):
    with h5py.File(result_file) as file:
        attributes = set(file["ranking"].attrs) - NETCDF_ATTRIBUTES
        assert attributes == {"seed", "top_k", "n_resamples", "n_permutations", "n_splits"}


def test_provenance_is_scalars_with_units(result_file):
    with h5py.File(result_file) as file:
        entries = variables_of(file["provenance"])
        assert len(entries) >= 5
        for name, dataset in entries.items():
            assert dataset.shape == (), name
            assert type_of(dataset) in {"string", "int64", "float64"}, name
            assert dataset.attrs["units"] and dataset.attrs["long_name"], name
        assert len(file["provenance/run_json"][()]) == 100000
        assert file["provenance/warnings"][()] == b""


# ---- an evaluation ---------------------------------------------------------------------------------------------------


def test_the_evaluation_holds_what_the_document_says(evaluation_file):
    with h5py.File(evaluation_file) as file:
        assert set(file) == {"evaluation", "provenance"}
        assert set(file.attrs) == set(SCHEMA["/"])
        found = variables_of(file["evaluation"])
        assert set(found) == set(EVALUATION)
        for name, dataset in found.items():
            assert_as_documented(name, dataset, EVALUATION[name])
            is_defined = dataset.dtype.kind != "f" or np.isfinite(dataset[()]).all()
            assert is_defined != ("status" in dataset.attrs), name
        section = document_section("Results file of an evaluation")
        attributes = section.split("Attributes:")[1].split("\n\n")[0]
        assert set(file["evaluation"].attrs) - NETCDF_ATTRIBUTES == set(re.findall(r"`(\w+)`", attributes)) - {
            "example"
        }


def test_the_evaluation_through_xarray(evaluation_file):
    with xr.open_datatree(evaluation_file, engine="h5netcdf") as tree:
        evaluation = tree["evaluation"].to_dataset()
        assert set(evaluation.variables) == set(EVALUATION)
        assert set(evaluation.coords) == {"pattern", "layer", "kv_head", "kv_length", "figure", "side"}
        assert float(evaluation.mean_nll.sel(pattern="full")) == evaluation.nll.sel(pattern="full").values.mean()
        difference = evaluation.mean_nll - evaluation.mean_nll.sel(pattern="periodic:4@0")
        np.testing.assert_array_equal(evaluation.nll_minus_baseline.values, difference.values)
        assert (evaluation.full_attention.sum("layer") == evaluation.full_layers).all()

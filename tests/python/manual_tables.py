"""The tables of results/README.md that describe files, and the same of a file through h5py."""

import re

import h5py
import launch

NETCDF_ONLY_DIMENSION = "This is a netCDF dimension but not a netCDF variable."


def document_section(title):
    text = (launch.REPOSITORY / "results" / "README.md").read_text(encoding="utf-8")
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def read_schema(title):
    """{group of the document: {variable: {type, dimensions, units, optional}}} from the tables of that section."""
    schema = {}
    for section in re.split(r"^### ", document_section(title), flags=re.M)[1:]:
        rows = [
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in section.splitlines()
            if line.startswith("| `")
        ]
        for group in re.findall(r"`(/[^`]*)`", section.splitlines()[0]):
            schema[group] = {
                row[0].strip("`"): {
                    "type": row[1],
                    "dimensions": () if row[2] == "scalar" else tuple(re.split(r",\s*", row[2])),
                    "units": row[3] if len(row) > 3 else None,
                    "optional": row[-1].startswith("*optional*"),
                }
                for row in rows
            }
    return schema


def type_of(dataset):
    return "string" if h5py.check_string_dtype(dataset.dtype) is not None else str(dataset.dtype)


def is_variable(dataset):
    name = dataset.attrs.get("NAME", b"")
    return not (name.decode() if isinstance(name, bytes) else str(name)).startswith(NETCDF_ONLY_DIMENSION)


def variables_of(group):
    return {name: item for name, item in group.items() if isinstance(item, h5py.Dataset) and is_variable(item)}


def dimensions_of(dataset):
    """Names of the attached dimension scales; a coordinate is its own scale."""
    if dataset.attrs.get("CLASS") == b"DIMENSION_SCALE":
        return (dataset.name.rsplit("/", 1)[1],)
    assert all(len(axis) == 1 for axis in dataset.dims), f"{dataset.name}: an axis without a dimension scale"
    return tuple(axis[0].name.rsplit("/", 1)[1] for axis in dataset.dims)


def assert_as_documented(name, dataset, entry):
    """Type, dimensions and units are those of its row in the document, and it says what it is."""
    assert type_of(dataset) == entry["type"], name
    assert dimensions_of(dataset) == entry["dimensions"], name
    assert dataset.attrs["units"] == entry["units"], name
    assert dataset.attrs["long_name"], name

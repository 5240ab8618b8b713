"""Text of a file that is not UTF-8, such as the path of a model in another encoding: xarray refuses such a file."""

import pathlib

import h5py
import numpy as np
import xarray as xr


def _is_utf8(values: list[object]) -> bool:
    try:
        for value in values:
            if isinstance(value, bytes):
                value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _dimensions(dataset: h5py.Dataset) -> list[str]:
    if dataset.is_scale:
        return [pathlib.PurePosixPath(dataset.name).name]
    return [pathlib.PurePosixPath(dimension[0].name).name for dimension in dataset.dims]


def _variable(dataset: h5py.Dataset, values: list[object]) -> xr.Variable:
    words = [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values]
    attributes = {key: dataset.attrs[key] for key in ("units", "long_name", "status") if key in dataset.attrs}
    return xr.Variable(_dimensions(dataset), np.array(words, object).reshape(dataset.shape), attributes)


def find(file: h5py.File) -> dict[str, xr.Variable]:
    """Texts by the path of their dataset, U+FFFD for what is not UTF-8: of every name of which one text is not."""
    texts: dict[str, list[object]] = {}
    odd: set[str] = set()

    def look(path: str, node: h5py.Group | h5py.Dataset) -> None:
        kind = h5py.check_string_dtype(node.dtype) if isinstance(node, h5py.Dataset) else None
        if kind is None or kind.length is not None:
            return
        texts[path] = np.asarray(node[()], object).ravel().tolist()
        if not _is_utf8(texts[path]):
            odd.add(pathlib.PurePosixPath(path).name)

    file.visititems(look)
    return {
        path: _variable(file[path], values) for path, values in texts.items() if pathlib.PurePosixPath(path).name in odd
    }


def put(tree: xr.DataTree, texts: dict[str, xr.Variable]) -> None:
    """Puts the texts into a tree that was opened without variables of their names."""
    for path, text in texts.items():
        place = pathlib.PurePosixPath("/") / path
        node = tree[str(place.parent)]
        if isinstance(node, xr.DataTree):
            node.dataset = node.to_dataset(inherit=False).assign({place.name: text})

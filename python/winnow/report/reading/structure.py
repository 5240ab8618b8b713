"""Looks at all of an HDF5 file, in a process that may break down over it: started by probe.py, forked for each file.

Refused is what the HDF5 library passes over in silence: bytes of other files (links, virtual datasets, external
storage: the hash of a file does not stand for them), groups that are inside of themselves, and chunks that are shorter
than their shape, behind whose end the library reads on. Everything is read once; errors of that are for the reader to
explain.
"""

import json
import os
import resource
import signal
import sys
import zlib
from collections.abc import Iterator

import h5py
import numpy as np

_ROOM = 2**31  # bytes beyond what is mapped and four times the file
_SECONDS = 1.5  # for what ought to take some hundredths
_BYTES_PER_SECOND = 2**23  # far below the slowest decompression, read twice
_PIECE = 2**24  # bytes that are read at a time
_DEEPEST = 32  # groups in groups
_LARGEST_RATIO = 1032  # of deflate
_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3
_NO_VARIABLE = b"This is a netCDF dimension but not a netCDF variable"


class Refused(Exception):
    """What is in the file and must not be: one line without the file's name."""


def _members(group: h5py.Group) -> Iterator[h5py.Group | h5py.Dataset]:
    for name in group:
        try:
            link = group.get(name, getlink=True)
        except TypeError:
            link = None
        place = f"{group.name.rstrip('/')}/{name}"
        if not isinstance(link, h5py.HardLink):
            what = {
                h5py.SoftLink: "is a soft link; copy what it leads to in with h5copy -f soft",
                h5py.ExternalLink: "is a link to another file; copy what it leads to in with h5copy -f ext",
            }.get(type(link), "is a link of an unknown kind; copy what it leads to in")
            raise Refused(f"{place}: only what lies in the file itself is read, and this {what}")
        try:
            yield group[name]
        except Exception:  # said by who reads it
            continue


def _refuse_foreign_bytes(dataset: h5py.Dataset, settings: h5py.h5p.PropDCID) -> None:
    what = ""
    if settings.get_layout() == h5py.h5d.VIRTUAL:
        what = "is a virtual dataset, whose values lie in others"
    elif settings.get_external_count() > 0:
        what = "has its values in another file"
    if what:
        raise Refused(
            f"{dataset.name}: only what lies in the file itself is read, and this {what}; copy it in with "
            "h5repack -l CONTI"
        )


def _refuse_claim(dataset: h5py.Dataset) -> None:
    stored = dataset.id.get_storage_size()
    size = dataset.dtype.itemsize * int(np.prod([int(extent) for extent in dataset.shape or ()], dtype=object))
    label = dataset.attrs.get("NAME", b"")
    if isinstance(label, bytes) and label.startswith(_NO_VARIABLE):
        return  # it has a length and no values
    if size > max(_PIECE, stored * _LARGEST_RATIO):
        raise Refused(
            f"{dataset.name} claims the shape {list(dataset.shape or ())}, but the file holds {stored} bytes of it"
        )


def _length_of_chunk(data: bytes, mask: int, filters: list[int], longest: int) -> int | None:
    """Of what the filters make of a chunk's bytes; None where they are not all known."""
    if len(data) > longest and not filters:
        return len(data)
    for i in reversed(range(len(filters))):
        if mask >> i & 1 or filters[i] == _SHUFFLE:
            continue
        if filters[i] == _FLETCHER32:
            data = data[:-4]
        elif filters[i] == _DEFLATE:
            data = zlib.decompressobj().decompress(data, longest + 5)
        else:
            return None
    return len(data)


def _refuse_short_chunks(dataset: h5py.Dataset, settings: h5py.h5p.PropDCID) -> None:
    if dataset.chunks is None:
        return
    stored = 16 if dataset.dtype.kind == "O" else dataset.dtype.itemsize  # strings: length, address, index
    expected = stored * int(np.prod(dataset.chunks))
    filters = [settings.get_filter(i)[0] for i in range(settings.get_nfilters())]
    for i in range(dataset.id.get_num_chunks()):
        chunk = dataset.id.get_chunk_info(i)
        mask, data = dataset.id.read_direct_chunk(chunk.chunk_offset)
        found = _length_of_chunk(data, mask, filters, expected)
        if found is not None and found < expected:
            raise Refused(
                f"{dataset.name} is damaged: its chunk at {list(chunk.chunk_offset)} holds {found} of {expected} bytes"
            )


def _read(dataset: h5py.Dataset) -> None:
    if not dataset.shape or dataset.dtype.kind == "O":
        dataset[()]
        return
    row = dataset.dtype.itemsize * int(np.prod(dataset.shape[1:]))
    step = max(1, _PIECE // max(1, row))
    for begin in range(0, dataset.shape[0], step):
        dataset[begin : begin + step]
    for dimension in dataset.dims:
        for scale in dimension.values():
            scale.name  # noqa: B018 - follows the reference


def _look_at_dataset(dataset: h5py.Dataset) -> None:
    settings = dataset.id.get_create_plist()
    _refuse_foreign_bytes(dataset, settings)
    _refuse_claim(dataset)
    _refuse_short_chunks(dataset, settings)


def _look_at(node: h5py.Group | h5py.Dataset, seen: set[int], depth: int = 0) -> None:
    place = h5py.h5o.get_info(node.id).addr
    if place in seen and isinstance(node, h5py.Group):
        raise Refused(f"the group {node.name} is there twice, or inside of itself")
    seen.add(place)
    for step in (_look_at_dataset, _read) if isinstance(node, h5py.Dataset) else ():
        try:
            step(node)
        except Refused:
            raise
        except Exception:  # said by who reads it
            pass
    for name in node.attrs:
        try:
            node.attrs[name]
        except Exception:
            continue
    if isinstance(node, h5py.Group):
        if depth > _DEEPEST:
            raise Refused(f"{node.name} lies more than {_DEEPEST} groups deep")
        for member in _members(node):
            _look_at(member, seen, depth + 1)


def _bound(file_size: int) -> None:
    """What looking takes at most: processor time, so that a busy machine ends nothing, and memory. SIGPROF ends it."""
    with open("/proc/self/statm", "rb") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    signal.setitimer(signal.ITIMER_PROF, _SECONDS + file_size / _BYTES_PER_SECOND)
    for number, bound in ((resource.RLIMIT_AS, mapped + _ROOM + 4 * file_size), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(number)
        resource.setrlimit(number, (bound if hard == resource.RLIM_INFINITY else min(bound, hard), hard))


def _answer(path: str) -> str:
    try:
        _bound(os.stat(path).st_size)
        with h5py.File(path, "r", locking=False) as file:
            _look_at(file["/"], set())
    except Refused as refused:
        return str(refused)
    except Exception:  # said by who reads it
        pass
    return ""


def serve() -> None:
    """For each line of standard input, a path as JSON: a line [status of the process that looked, refusal or ""]."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin.buffer:
        source, sink = os.pipe()
        process = os.fork()
        if process == 0:
            os.write(sink, _answer(json.loads(line)).encode("utf-8", "replace")[:4000])
            os._exit(0)  # h5py is not asked to tidy up after a damaged file
        os.close(sink)
        with os.fdopen(source, "rb") as pipe:
            refusal = pipe.read().decode("utf-8", "replace")
        _, status = os.waitpid(process, 0)
        sys.stdout.write(json.dumps([os.waitstatus_to_exitcode(status), refusal]) + "\n")
        sys.stdout.flush()

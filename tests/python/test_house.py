"""The rooms of the source: which folder may include which, what a room is called, and how large it may grow."""

import collections
import re

import launch
import pytest

# Each folder of the C++ code, with the folders that it stands on: it may include those, and what they stand on. It
# comes after all of them, so there is no circle. CMake has a target for each namespace which links the same ones.
STANDS_ON = {
    "base": [],
    "kernels": ["base"],
    "kernels/cpu": ["kernels"],
    "kernels/cuda": ["kernels/cpu"],
    "model/quantization": ["kernels"],
    "model": ["model/quantization"],
    "results/stats": ["base"],
    "results/storage": ["results/stats"],
    "results/calibration": ["results/storage"],
    "results/search": ["results/calibration"],
    "results/evaluation": ["results/calibration"],
    "results/campaign": ["results/calibration"],
    "results/selection": ["results/search", "results/evaluation"],
    "pipeline/engine/signals": ["model"],
    "pipeline/engine": ["pipeline/engine/signals"],
    "pipeline/runtime": ["model", "kernels/cuda"],
    "pipeline/run": ["pipeline/engine", "pipeline/runtime", "results/selection"],
    "pipeline/verbs": ["pipeline/run"],
    "jobs/sweep": ["pipeline/run", "results/campaign"],
    "jobs/sweep/executors/local": ["jobs/sweep"],
    "jobs/sweep/executors/slurm": ["jobs/sweep"],
    "jobs/cli": ["pipeline/run"],
    "jobs/cli/commands": ["jobs/cli", "pipeline/verbs", "jobs/sweep/executors/local", "jobs/sweep/executors/slurm"],
    "jobs": ["jobs/cli/commands"],
}
# base/ is what all speak of without its name; everything else has the name of its folder.
# The signals are a part of the engine with a folder of its own.
NAMESPACES = {"base": "winnow", "jobs": "winnow::program", "pipeline/engine/signals": "winnow::engine"}
# The processor's variants of a kernel are in namespaces of their own inside winnow::cpu.
INNER_NAMESPACES = {"kernels/cpu": {"winnow::cpu::WINNOW_KERNELS", "base", "x86_64_v4"}, "kernels/cuda": {"graph_id"}}
# Types of a library get their conversions where the library looks for them.
FOREIGN_NAMESPACES = {"jobs/cli": {"CLI"}}
# Made by the build, in its own folder.
GENERATED = {"winnow_version.h", "slurm_template.h"}

MAX_LINES = 500
MAX_SOURCES = 20
HEADERS = (".h", ".cuh")
UNITS = (".cc", ".cu")


def files(suffixes, *folders):
    found = [
        path
        for folder in folders
        for path in sorted((launch.REPOSITORY / folder).rglob("*"))
        if path.suffix in suffixes
    ]
    assert found
    return found


def name_of(path):
    return path.relative_to(launch.REPOSITORY).as_posix()


def room_of(path):
    return path.parent.relative_to(launch.REPOSITORY).as_posix()


PRODUCT = files(HEADERS + UNITS, *{room.split("/")[0] for room in STANDS_ON})


def reachable(room):
    return {room}.union(*(reachable(below) for below in STANDS_ON[room]))


def includes(path):
    return re.findall(r'^\s*#\s*include\s+"([^"]+)"', path.read_text(), re.MULTILINE)


def test_every_folder_with_sources_is_a_room():
    assert {room_of(path) for path in PRODUCT} == set(STANDS_ON)


def test_a_room_stands_on_rooms_that_are_named_before_it():
    seen = set()
    for room, below in STANDS_ON.items():
        assert set(below) <= seen, room
        seen.add(room)


def test_no_include_leads_upwards():
    n_seen = 0
    wrong = []
    for path in PRODUCT:
        for included in includes(path):
            if included in GENERATED:
                continue
            n_seen += 1
            if not (launch.REPOSITORY / included).is_file():
                wrong.append(f"{name_of(path)} includes {included}, which is no path from the repository's root")
            elif included.rpartition("/")[0] not in reachable(room_of(path)):
                wrong.append(f"{name_of(path)} includes {included}")
    assert n_seen > 1000
    assert wrong == []


def test_rooms_do_not_stand_on_each_other_in_a_circle():
    """From the includes alone, whatever the table above says."""
    arrows = {room: set() for room in STANDS_ON}
    for path in PRODUCT:
        arrows[room_of(path)] |= {included.rpartition("/")[0] for included in includes(path)} - {"", room_of(path)}
    while leaves := {room for room, below in arrows.items() if not below}:
        arrows = {room: below - leaves for room, below in arrows.items() if room not in leaves}
    assert arrows == {}


@pytest.mark.parametrize("room", STANDS_ON)
def test_the_namespace_has_the_name_of_the_folder(room):
    expected = NAMESPACES.get(room, "winnow::" + room.rpartition("/")[2])
    others = INNER_NAMESPACES.get(room, set()) | FOREIGN_NAMESPACES.get(room, set())
    n_named = 0
    for path in PRODUCT:
        if room_of(path) == room:
            named = set(re.findall(r"^namespace ([\w:]+) \{", path.read_text(), re.MULTILINE))
            assert named - others <= {expected}, name_of(path)
            n_named += expected in named
    assert n_named > 0


def test_names_of_other_rooms_are_qualified():
    rooms = {"winnow", "std", *(room.rpartition("/")[2] for room in STANDS_ON)}
    opened = {
        (name_of(path), name)
        for path in PRODUCT
        for name in re.findall(r"^\s*using namespace ([\w:]+);", path.read_text(), re.MULTILINE)
    }
    assert opened != set()  # the pattern finds what there is: namespaces inside a room
    assert {(path, name) for path, name in opened if name.rpartition("::")[2] in rooms} == set()


def sources():
    """Code that people read, and no data."""
    return PRODUCT + files((*HEADERS, *UNITS, ".py"), "packaging", "python", "tests")


def test_no_source_is_too_long():
    lengths = {name_of(path): path.read_text().count("\n") for path in sources()}
    assert len(lengths) > 400
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_no_folder_has_too_many_sources():
    """Headers go with their source."""
    counts = collections.Counter(room_of(path) for path in sources() if path.suffix not in HEADERS)
    assert {room: n for room, n in counts.items() if n > MAX_SOURCES} == {}

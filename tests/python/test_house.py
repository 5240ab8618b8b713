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
    "kernels/cuda/libraries": ["kernels/cpu"],
    "kernels/cuda": ["kernels/cuda/libraries"],
    "kernels/cuda/experts": ["kernels/cuda"],
    "kernels/cuda/hopper": ["kernels/cuda"],
    "kernels/cuda/weights": ["kernels/cuda"],
    "model/quantization": ["kernels"],
    "model": ["model/quantization"],
    "results/stats": ["base"],
    "results/storage": ["results/stats"],
    "results/race": ["results/storage"],
    "results/calibration": ["results/race"],
    "results/search": ["results/calibration"],
    "results/evaluation": ["results/calibration"],
    "results/campaign": ["results/calibration"],
    "results/selection": ["results/search", "results/evaluation"],
    "results/serving": ["results/selection"],
    "results/plan": ["results/serving"],
    "pipeline/engine/signals": ["model"],
    "pipeline/engine": ["pipeline/engine/signals"],
    "pipeline/runtime": ["model", "kernels/cuda"],
    "pipeline/run/options": ["pipeline/engine", "kernels/cuda", "results/selection"],
    "pipeline/run": ["pipeline/run/options", "pipeline/runtime"],
    "pipeline/verbs": ["pipeline/run", "results/plan"],
    "jobs/sweep": ["pipeline/run", "results/campaign"],
    "jobs/sweep/executors/local": ["jobs/sweep"],
    "jobs/sweep/executors/slurm": ["jobs/sweep"],
    "jobs/cli": ["pipeline/run"],
    "jobs/cli/commands": [
        "jobs/cli",
        "pipeline/verbs",
        "jobs/sweep/executors/local",
        "jobs/sweep/executors/slurm",
    ],
    "jobs": ["jobs/cli/commands"],
}
# base/ is what all speak of without its name; everything else has the name of its folder.
# Parts with a folder of their own: the signals of the engine, mixtures of experts and the loading of weights of the
# CUDA backend, the options of a run.
NAMESPACES = {
    "base": "winnow",
    "jobs": "winnow::program",
    "kernels/cuda/experts": "winnow::cuda",
    "kernels/cuda/hopper": "winnow::cuda::hopper",
    "kernels/cuda/libraries": "winnow::cuda",
    "kernels/cuda/weights": "winnow::cuda",
    "pipeline/engine/signals": "winnow::engine",
    "pipeline/run/options": "winnow::run",
}
# The processor's variants of a kernel are in namespaces of their own inside winnow::cpu.
INNER_NAMESPACES = {
    "kernels/cpu": {"winnow::cpu::WINNOW_KERNELS", "base", "x86_64_v4"},
    "kernels/cuda": {"graph_id"},
    "kernels/cuda/hopper": {"winnow::cuda"},  # of the backend, whose methods are there
}
# Types of a library get their conversions where the library looks for them.
FOREIGN_NAMESPACES = {"jobs/cli": {"CLI"}}
# Made by the build, in its own folder.
GENERATED = {"winnow_version.h", "slurm_template.h"}

# Headers whose functions are not in the source of their name, and why.
SPREAD_HEADERS = {
    "jobs/cli/commands/commands.h": "lists the verbs; each has a file of its own",
    "pipeline/engine/signals/functions.h": "lists the signals; each has a file of its own",
    "kernels/cuda/cuda.h": "is what other rooms see of cuda_backend.cc, and of no_cuda.cc where there is no CUDA",
    "kernels/cpu/cpu_backend.h": "lists the operations; each has a file of its own",
    "kernels/cuda/cuda_backend.h": "lists the operations; each has a file of its own",
}

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


def bare_text(path):
    """Code without comments, lines of the preprocessor, and template arguments, which may have brackets in them."""
    text = re.sub(r"//.*|^\s*#(?:.*\\\n)*.*", "", path.read_text(), flags=re.MULTILINE)
    while text != (text := re.sub(r"<[^<>;{}]*>", "", text)):
        pass
    return text


def declared_functions(text):
    """Functions that a header declares outside of its classes and does not define itself."""
    text = re.sub(r"^namespace [\w:]*\s*\{|=\s*\{[^{}]*\}", "", text, flags=re.MULTILINE)
    while text != (text := re.sub(r"\{[^{}]*\}", "@", text)):  # bodies of classes and functions
        pass
    for statement in re.findall(r"[^;@]*;", text):
        words = re.match(r"[\w:&*\[\]\s]*[\s&*](\w+)\(", statement)
        if words and not re.match(r"\s*(template|using|inline|constexpr|static_assert)\b", statement):
            yield words[1]


def defined_functions(text):
    """Names before the bracket of a line that is not indented: the layout indents whatever is inside of something."""
    return set(re.findall(r"^(?:\w[\w:&*\[\] ]*[ &*])?(\w+)\(", text, re.MULTILINE))


def functions_and_places(headers):
    """Each function with whether it is in X.cc or X.cu of its X.h. Methods are free: a class may fill two sources."""
    for header in headers:
        own = "".join(bare_text(path) for path in map(header.with_suffix, UNITS) if path.is_file())
        defined = defined_functions(own)
        for name in declared_functions(bare_text(header)):
            yield header, name, name in defined


def test_a_function_in_another_source_is_found(tmp_path):
    (tmp_path / "x.h").write_text(
        "namespace winnow {\n// A class (with methods); they are free.\nclass X {\n public:\n  int method();\n};\n"
        "std::function<int(int)> here(const X& x = {}, int n = 1);\nvoid elsewhere();\n"
        "inline int inside() { return 1; }\n}  // namespace winnow\n"
    )
    (tmp_path / "x.cc").write_text(
        "std::function<int(int)> here(const X& x,\n    int n) {\n  elsewhere();\n  return {};\n}\n"
    )
    header = tmp_path / "x.h"
    assert list(functions_and_places([header])) == [(header, "here", True), (header, "elsewhere", False)]


def test_the_functions_of_a_header_are_in_the_source_of_its_name():
    found = list(functions_and_places(path for path in PRODUCT if path.suffix in HEADERS))
    assert len(found) > 300  # the patterns find what there is
    elsewhere = {f"{name_of(header)}: {name}" for header, name, is_own in found if not is_own}
    assert {line for line in elsewhere if line.partition(":")[0] not in SPREAD_HEADERS} == set()
    assert {line.partition(":")[0] for line in elsewhere} == set(SPREAD_HEADERS)


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

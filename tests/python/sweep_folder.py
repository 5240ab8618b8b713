"""A folder with sweep files, their output, and the processes that work on it."""

import json

import launch

LENGTHS = [300, 260, 220, 310, 240, 280]
SLOW_LENGTHS = [700, 640, 560, 720, 500, 610, 530, 660]


class Folder:
    """A folder with sweep files and their output."""

    def __init__(self, path, inputs):
        self.path, self.inputs = path, inputs
        path.mkdir(parents=True, exist_ok=True)

    def write(self, file="night.yaml", models=("a", "b"), datasets=("long", "code"), **more):
        sweep = {
            "name": "night",
            "output": "out",
            "models": [{"name": model, "path": str(self.inputs / "models" / model)} for model in models],
            "datasets": [
                data
                if isinstance(data, dict)
                else {"name": data, "data": str(self.inputs / "data" / ("{model}-" + data + ".h5"))}
                for data in datasets
            ],
            "windows": [16, 32],
            "sinks": [2],
            "device": "cpu",
            "defaults": {"threads": 1},
        } | more
        (self.path / file).write_text(json.dumps(sweep, indent=2))  # which is YAML, too
        return self.path / file

    def arguments(self, *words):
        return ["sweep", words[0], self.path / "night.yaml", *words[1:]]

    def run(self, *words, file=None):
        arguments = self.arguments(*words)
        if file is not None:
            arguments[2] = file
        return launch.run(arguments, self.path / "cache")

    def submit(self, *more, file=None):
        return self.run("submit", "--executor", "local", *more, file=file)

    def start(self, *more):
        return launch.start(self.arguments("submit", "--executor", "local", *more), self.path / "cache")

    def status(self):
        done = self.run("status", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def cells(self):
        return self.status()["cells"]

    def runs(self):
        return sorted((self.path / "out" / "runs").iterdir())

    def attempts(self):
        return sorted((self.path / "out" / "runs").glob("*/attempts/*.json"))


def states(cells):
    return [cell["state"] for cell in cells]


def processes(word):
    """Processes of winnow whose command line holds the word."""
    return sorted(pid for pid, (_, words) in launch.winnow_processes().items() if any(word in part for part in words))


def ranks_of(folder):
    """Processes of the cells that run, started with mpirun or without it."""
    return processes(f"--out={folder.path}")


def direct(folder, out, model, data, window, *more):
    done = launch.run(
        [
            "calibrate",
            "--model",
            folder.inputs / "models" / model,
            "--data",
            folder.inputs / "data" / f"{model}-{data}.h5",
            "--out",
            folder.path / out,
            "--window",
            window,
            "--sinks",
            2,
            "--threads",
            1,
            "--device",
            "cpu",
            *more,
        ],
        folder.path / "cache",
    )
    assert done.returncode == 0, done.stderr
    return folder.path / out / "results.h5"

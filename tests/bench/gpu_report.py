"""The rows of compare_transformers_gpu.py: printed as they come, and written whole after each."""

import datetime
import json
import platform
import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, field

import torch
import transformers
from winnow_process import WinnowFailed, processor

# Operations of a profile that count as products and attention; linear layers have the shape in their names.
MATRIX_OPERATIONS = ("linear", "attention", "token_nll")


@dataclass
class Row:
    """One line of the table. What was not measured is None."""

    section: str
    work: str
    winnow_seconds: float | None = None
    transformers_seconds: float | None = None
    transformers_how: str | None = None
    share: float | None = None  # of products and attention in the profile
    idle: float | None = None
    remarks: list = field(default_factory=list)
    raw: dict = field(default_factory=dict)

    @property
    def ratio(self):
        if self.winnow_seconds is None or self.transformers_seconds is None:
            return None
        return self.transformers_seconds / self.winnow_seconds

    def cells(self):
        def cell(value, form):
            return "-" if value is None else format(value, form)

        peer = cell(self.transformers_seconds, ".3f") + (f" ({self.transformers_how})" if self.transformers_how else "")
        ratio = cell(self.ratio, ".2f") + ("" if self.ratio is None else "x")
        return [
            self.work,
            peer,
            cell(self.winnow_seconds, ".4g"),
            ratio,
            cell(self.share, ".1%"),
            cell(self.idle, ".1%"),
            "; ".join(self.remarks),
        ]


class Report:
    """All rows so far, with what they were measured on."""

    HEAD = ["work", "Transformers, s", "winnow, s", "ratio", "GEMM + attention", "idle", "remarks"]

    def __init__(self, options, root, winnow):
        self.options, self.rows, self.program = options, [], {}
        self.date = datetime.datetime.now(datetime.UTC)
        self.path = (
            options.out
            or root / "results" / "benchmarks" / f"gpu-{options.shape_name}-{self.date.date().isoformat()}.md"
        )
        self.commands = [shlex.join(["python3", "tests/bench/compare_transformers_gpu.py", *sys.argv[1:]])]
        self.versions = {
            "winnow": version_of(winnow),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "processor": processor(),
            **gpu_and_driver(options),
        }
        if options.write:
            self.keep_sections_of(self.path.with_suffix(".json"))

    def keep_sections_of(self, path):
        """Takes over rows of sections that are not measured now, if all else is the same."""
        if not path.exists():
            return
        former = json.loads(path.read_text())
        if former["versions"] != self.versions:
            print(f"{path}: from another card or other versions, written anew", flush=True)
            return
        self.program, self.commands = former["winnow"], [*former["commands"], *self.commands]
        for row in former["rows"]:
            if row["section"] not in self.options.only:
                del row["ratio"]
                self.rows.append(Row(**row))

    def add(self, row):
        self.rows.append(row)
        for name in ("winnow_version", "git_revision", "devices", "attention_path"):
            if name in row.raw.get("provenance", {}):
                self.program[name] = row.raw["provenance"][name]
        print("| " + " | ".join(row.cells()) + " |", flush=True)
        if self.options.write:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(self.render())
            raw = {
                "commands": self.commands,
                "date": self.date.isoformat(timespec="seconds"),
                "versions": self.versions,
                "winnow": self.program,
                "rows": [asdict(row) | {"ratio": row.ratio} for row in self.rows],
            }
            self.path.with_suffix(".json").write_text(json.dumps(raw, indent=1) + "\n")

    def has_failed(self):
        return any(row.work.endswith(": failed") for row in self.rows)

    def render(self):
        winnow = self.program
        lines = [
            "# winnow and Transformers on a GPU",
            "",
            *(f"`{command}`, {self.date.date().isoformat()}\n" for command in self.commands),
            f"{self.versions['device']}, driver {self.versions['driver']}; {self.versions['processor']}; winnow "
            f"{winnow.get('winnow_version', '?')} ({winnow.get('git_revision', '?')[:12]}, "
            f"{winnow.get('devices', '?')}, attention {winnow.get('attention_path', '?')}); torch "
            f"{self.versions['torch']}, transformers {self.versions['transformers']}; Python "
            f"{self.versions['python']}.",
            "",
            *(["**Tiny shapes: these figures say nothing about speed.**", ""] if self.options.tiny else []),
            f"Shape {self.options.shape_name}, {self.options.shape.layers} layers. "
            "Seconds an example where nothing else is said: on winnow's side the median over the examples after "
            "the first, without start and loading; on Transformers' side layers + 1 times the median full forward "
            "pass, without masks, after a warm-up. GEMM + attention and idle are shares of a separate run with "
            "--profile.",
            "",
            "| " + " | ".join(self.HEAD) + " |",
            "| " + " | ".join(["---"] * len(self.HEAD)) + " |",
            *("| " + " | ".join(row.cells()) + " |" for row in self.rows),
        ]
        return "\n".join(lines) + "\n"

    @staticmethod
    def shares(text):
        """(share of products and attention, share of idle time, the profile) of /provenance/profile; or Nones."""
        if not text:
            return None, None, None
        profile = json.loads(text)
        matrix = sum(o["seconds"] for o in profile["operations"] if o["name"].startswith(MATRIX_OPERATIONS))
        total = profile["total_seconds"]
        return matrix / total, profile["idle_seconds"] / total, profile

    @staticmethod
    def operations(text):
        """Seconds by operation of `winnow bench --json`."""
        return {operation["name"]: operation["seconds"] for operation in json.loads(text)["operations"]}

    @staticmethod
    def free_bytes(directory):
        return shutil.disk_usage(directory).free


def version_of(winnow):
    try:
        return winnow.run(["--version"]).strip()
    except WinnowFailed as error:
        return str(error)


def gpu_and_driver(options):
    if options.device != "cuda":
        return {"device": "CPU", "driver": "none"}
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
        )
        driver = (done.stdout.strip().splitlines() or ["unknown"])[0]
    except (OSError, subprocess.TimeoutExpired):
        driver = "unknown"
    return {"device": torch.cuda.get_device_name(), "driver": driver, "cuda": torch.version.cuda}

"""Times `winnow report` on a result of 96 layers x 1,000 examples. The target is 10 s and 6 MiB.

    .venv/bin/python tests/bench/report_speed.py [--layers 96] [--examples 1000] [--repetitions 5] [--write]

--write keeps the figures in results/benchmarks/report-DATE.md.
"""

import argparse
import datetime
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests/python"))
import result_files  # noqa: E402

TARGET_SECONDS, TARGET_MIB = 10.0, 6.0


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--layers", type=int, default=96)
    flags.add_argument("--examples", type=int, default=1000)
    flags.add_argument("--repetitions", type=int, default=5)
    flags.add_argument("--write", action="store_true")
    flags = flags.parse_args()
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "python")}
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as directory:
        source, page = pathlib.Path(directory, "results.h5"), pathlib.Path(directory, "page.html")
        result_files.write(source, flags.examples, flags.layers)
        seconds, processor_seconds = [], []
        for _ in range(flags.repetitions):
            start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(
                [sys.executable, "-m", "winnow.report", source, "--out", page],
                check=True,
                env=environment,
                stdout=subprocess.DEVNULL,
            )
            seconds.append(time.perf_counter() - start)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            processor_seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
        size = page.stat().st_size / 2**20
    today = datetime.date.today().isoformat()
    lines = [
        "# winnow report",
        "",
        f"`.venv/bin/python tests/bench/report_speed.py --write`, {today}",
        "",
        f"{processor()}, {os.cpu_count()} cores, load before the run {load:.1f}; Python {platform.python_version()}. "
        f"One result of {flags.layers} layers x {flags.examples:,} examples with a control, whole process; "
        f"{flags.repetitions} repetitions.",
        "",
        "| | median | range | target |",
        "| --- | --- | --- | --- |",
        f"| seconds | {statistics.median(seconds):.2f} | {min(seconds):.2f} to {max(seconds):.2f} | "
        f"{TARGET_SECONDS:g} |",
        f"| of a processor | {statistics.median(processor_seconds):.2f} | {min(processor_seconds):.2f} to "
        f"{max(processor_seconds):.2f} | |",
        f"| page, MiB | {size:.2f} | | {TARGET_MIB:g} |",
    ]
    print("\n".join(lines))
    if flags.write:
        (REPOSITORY / f"results/benchmarks/report-{today}.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

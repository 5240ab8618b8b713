"""winnow prepare beside the straightforward loop over apply_chat_template(tokenize=True) on one process.

    .venv/bin/python tests/bench/prepare_speed.py [--documents 200] [--tokens 20000] [--repeat 3] [--gigabyte]

Same documents, same run, loop and winnow prepare in turn; the tokens are compared. Besides wall time the processor time
of each, which other work on the machine changes little, and that of the tokenizer alone. The documents are made from
the repository's own text, so that words repeat as they do in real text. --gigabyte: peak memory over a file of 1 GB
instead.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests/python"))

import vocabularies  # noqa: E402

CHARACTERS_PER_TOKEN = 3.6


def source_text():
    names = subprocess.run(
        ["git", "ls-files", "*.md", "*.cc", "*.h", "*.py"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split()
    return [paragraph for name in names for paragraph in (REPOSITORY / name).read_text().split("\n\n")]


def write_documents(path, count, tokens):
    """JSON Lines of LongAlign's kind; every document another order of paragraphs."""
    paragraphs, generator = source_text(), random.Random(0)
    with open(path, "w") as file:
        for _ in range(count):
            parts, size = [], 0
            while size < tokens * CHARACTERS_PER_TOKEN:
                parts.append(generator.choice(paragraphs))
                size += len(parts[-1]) + 2
            messages = [
                {"role": "user", "content": "\n\n".join(parts) + "\n\nWhat is this about?"},
                {"role": "assistant", "content": generator.choice(paragraphs).strip() or "Nothing."},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")


def loop(model, path):
    """(ids of every document, seconds, processor seconds, those of the tokenizer alone on the same texts)."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    start, start_cpu = time.perf_counter(), time.process_time()
    with open(path) as file:
        ids = [tokenizer.apply_chat_template(json.loads(line)["messages"], tokenize=True)["input_ids"] for line in file]
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    with open(path) as file:
        texts = [tokenizer.apply_chat_template(json.loads(line)["messages"], tokenize=False) for line in file]
    start_cpu = time.process_time()
    for text in texts:
        tokenizer.backend_tokenizer.encode_batch_fast([text], add_special_tokens=False)
    return ids, seconds, cpu, time.process_time() - start_cpu


def prepare(model, path, out, *arguments):
    """(report, processor seconds with the start of the program); the report has the wall time without it."""
    command = [
        sys.executable,
        "-m",
        "winnow.prepare",
        "--model",
        model,
        "--input",
        path,
        "--out",
        out,
        "--force",
        "--json",
        "--min-prompt-tokens",
        "1",
        "--max-prompt-tokens",
        "10000000",
        "--min-answer-tokens",
        "1",
        *arguments,
    ]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [str(word) for word in command],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / "python")},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return json.loads(done.stdout), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def check_same_tokens(ids, out):
    """winnow keeps everything but the template's line break after the end of turn."""
    import h5py

    with h5py.File(out) as file:
        tokens, offsets = file["tokens"][:], file["offsets"][:]
    found = sorted(tokens[a:b].tolist() for a, b in zip(offsets, offsets[1:], strict=False))
    assert found == sorted(document[:-1] for document in ids), "the tokens differ"


def compare(folder, model, arguments):
    path, out = folder / "documents.jsonl", folder / "out.h5"
    write_documents(path, arguments.documents, arguments.tokens)
    write_documents(folder / "one.jsonl", 1, 100)
    _, start_cpu = prepare(model, folder / "one.jsonl", out, "--count", "all")
    rows = []
    for _ in range(arguments.repeat):
        ids, loop_seconds, loop_cpu, tokenizer_cpu = loop(model, path)
        report, cpu = prepare(model, path, out, "--count", "all")
        check_same_tokens(ids, out)
        cpu -= start_cpu
        rows.append((loop_seconds / report["seconds"], loop_cpu / cpu, cpu))
        n_tokens = sum(map(len, ids))
        print(
            f"{n_tokens / 1e6:.2f} M tokens; wall: loop {loop_seconds:.2f} s, winnow prepare {report['seconds']:.2f} s "
            f"on {report['processes']} processes, ratio {rows[-1][0]:.2f}; processor: loop {loop_cpu:.2f} s, winnow "
            f"prepare {cpu:.2f} s, ratio {rows[-1][1]:.2f} a core; tokenizer alone {tokenizer_cpu:.2f} s; load "
            f"{os.getloadavg()[0]:.1f}",
            flush=True,
        )
    wall, core, cpu = (statistics.median(column) for column in zip(*rows, strict=True))
    print(
        f"medians: wall ratio {wall:.2f}, {core:.2f} a core; {cpu / n_tokens * 1e6:.2f} processor seconds per million "
        "tokens; the same tokens"
    )


def gigabyte(folder, model):
    path, document = folder / "large.jsonl", folder / "one.jsonl"
    write_documents(document, 20, 20000)
    lines = [json.loads(line) for line in document.read_text().splitlines()]
    with open(path, "w") as file:
        number = 0
        while file.tell() < 1e9:
            row = lines[number % len(lines)]
            row["messages"][0]["content"] = f"{number} " + row["messages"][0]["content"]
            file.write(json.dumps(row) + "\n")
            number += 1
    command = [sys.executable, "-m", "winnow.prepare", "--model", model, "--input", path, "--out", folder / "out.h5"]
    start = time.perf_counter()
    process = subprocess.Popen(
        [str(word) for word in command], env=os.environ | {"PYTHONPATH": str(REPOSITORY / "python")}
    )
    peak = 0
    while process.poll() is None:
        peaks = []
        for pid in [
            process.pid,
            *subprocess.run(
                ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True
            ).stdout.split(),
        ]:
            with contextlib.suppress(OSError):
                peaks += map(int, re.findall(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text()))
        peak = max([peak, *peaks])
        time.sleep(0.2)
    print(
        f"{path.stat().st_size / 1e9:.2f} GB, {number} documents: {time.perf_counter() - start:.0f} s, "
        f"peak of the largest process {peak / 1024:.0f} MiB"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=20000, help="of a document, roughly")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--gigabyte", action="store_true")
    arguments = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        vocabularies.write_qwen_tokenizer(folder / "qwen.json")
        model = vocabularies.write_model(
            folder / "model",
            folder / "qwen.json",
            "chatml",
            {"eos_token": "<|im_end|>"},
            model_type="qwen3",
            vocab_size=151936,
        )
        if arguments.gigabyte:
            gigabyte(folder, model)
        else:
            compare(folder, model, arguments)


if __name__ == "__main__":
    main()

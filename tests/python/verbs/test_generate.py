"""winnow evaluate --generate from outside: texts that agree with the teacher-forced figures, on any number of ranks and
after any crash, and the file of responses."""

import json
import pathlib
import time

import h5py
import launch
import numpy as np
import pytest
import run_folder
import tiny

LAYERS = 4
LENGTHS = [300, 131, 260, 200, 170]
ANSWER = 12
PATTERNS = ["full", "windowed", "list:1"]
WINDOW, SINKS = 64, 2


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    directory = tmp_path_factory.mktemp("generate")
    tiny.write_checkpoint(directory / "model", layers=LAYERS)
    tiny.write_calibration(directory / "random.h5", LENGTHS)
    return directory


def arguments(work, out, *more, data="random.h5", generate=ANSWER):
    flags = [word for pattern in PATTERNS for word in ("--pattern", pattern)]
    window = ["--window", WINDOW, "--sinks", SINKS, "--threads", 1]
    return run_folder.arguments("evaluate", work, out, *window, *flags, "--generate", generate, *more, data=data)


def evaluate(work, out, *more, ranks=None, **inputs):
    done = launch.run(arguments(work, out, *more, **inputs), work / "cache", ranks)
    assert done.returncode == 0, done.stderr
    return done


def responses(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def written(work, out):
    """What does not depend on time."""
    with h5py.File(work / out / "results.h5") as file:
        group = file["evaluation"]
        return {
            name: group[name][()].tolist()
            for name in group
            if name.startswith(("generated", "mean_generated")) or name in ("exact_match", "token_accuracy")
        }


@pytest.fixture(scope="module")
def quiet(work):
    evaluate(work, "quiet", "--responses", work / "quiet.jsonl")
    return written(work, "quiet")


@pytest.fixture(scope="module")
def answered(work, quiet):
    """A set whose answers are what full attention wrote."""
    with h5py.File(work / "random.h5") as file:
        starts, offsets, tokens = file["answer_start"][:], file["offsets"][:], file["tokens"][:].tolist()
    texts = [line["token_ids"] for line in responses(work / "quiet.jsonl") if line["pattern"] == "full"]
    examples = [
        tokens[offset : offset + start] + text for offset, start, text in zip(offsets, starts, texts, strict=False)
    ]
    with h5py.File(work / "answered.h5", "w") as file:
        file.attrs["format"], file.attrs["format_version"] = "winnow-calibration", 1
        file["tokens"] = np.concatenate(examples).astype("<i4")
        file["offsets"] = np.cumsum([0] + [len(example) for example in examples]).astype("<i8")
        file["answer_start"] = starts
        file["example_id"] = [f"answered-{e}" for e in range(len(examples))]
    return "answered.h5"


def test_a_text_is_the_answer_exactly_where_teacher_forcing_says_so(work, answered):
    evaluate(work, "answered", data=answered)
    found = written(work, "answered")
    assert found["generated_exact_match"] == found["exact_match"]
    assert found["generated_exact_match"][0] == [1] * len(LENGTHS)
    assert found["generated_exact_match"][1] != found["generated_exact_match"][0], "the window changes texts"
    assert found["mean_generated_exact_match"][0] == 1.0


def test_a_text_does_not_match_random_answers(quiet):
    assert np.sum(quiet["generated_exact_match"]) == 0
    assert (np.array(quiet["generated_tokens"]) == ANSWER).all() and np.sum(quiet["generated_stopped"]) == 0


def test_a_windowed_layer_keeps_window_and_sinks(work, quiet):
    with h5py.File(work / "random.h5") as file:
        prompts = file["answer_start"][:]
    row = (2 * 8 + 2 * 16) * 4  # keys of 2 heads of 8; values stored 16 wide; float32
    tile = 64
    full = [LAYERS * -(-(n + ANSWER - 1) // tile) * tile * row for n in prompts]
    windowed = LAYERS * -(-(WINDOW + SINKS) // tile) * tile * row
    assert quiet["generated_cache_bytes"][0] == full
    assert quiet["generated_cache_bytes"][1] == [windowed] * len(prompts)


@pytest.mark.parametrize("ranks", [2, 3])
def test_texts_do_not_depend_on_ranks(work, quiet, ranks):
    out = f"ranks{ranks}"
    evaluate(work, out, "--responses", work / f"{out}.jsonl", ranks=ranks)
    assert written(work, out) == quiet
    assert (work / f"{out}.jsonl").read_text() == (work / "quiet.jsonl").read_text()


def test_responses_are_ordered_and_whole(work, quiet):
    lines = responses(work / "quiet.jsonl")
    assert [line["pattern"] for line in lines] == [name for name in PATTERNS for _ in LENGTHS]
    assert all(set(line) == {"example_id", "pattern", "prompt_tokens", "token_ids", "stopped"} for line in lines)
    # Again from what is on disk: nothing is written anew.
    before = sorted((path, path.stat().st_mtime_ns) for path in (work / "quiet" / "texts").iterdir())
    done = evaluate(work, "quiet", "--responses", work / "again.jsonl")
    assert sorted((path, path.stat().st_mtime_ns) for path in (work / "quiet" / "texts").iterdir()) == before
    assert (work / "again.jsonl").read_text() == (work / "quiet.jsonl").read_text()
    assert "Free generation" in done.stdout


def test_a_damaged_batch_is_written_again(work, quiet):
    evaluate(work, "damaged")
    batches = sorted((work / "damaged" / "texts").iterdir())
    text = batches[0].read_text()
    batches[0].write_text(text.replace('"token_ids":[', '"token_ids":[1,', 1))
    batches[1].write_bytes(b"\xff\x00 no JSON")
    batches[2].write_text(text[: len(text) // 2])
    done = evaluate(work, "damaged", "--seed", 1)
    assert done.stderr.count("written again") == 3
    assert written(work, "damaged")["generated_tokens"] == quiet["generated_tokens"]


def test_killed_in_the_middle(work, quiet):
    process = launch.start(arguments(work, "killed"), work / "cache", 2)
    texts = work / "killed" / "texts"
    launch.wait_for(lambda: texts.is_dir() and list(texts.glob("*.jsonl")), process)
    time.sleep(0.02)  # not to wait for anything: in the middle of a batch
    launch.kill_all(process)
    launch.finish(process)
    evaluate(work, "killed")
    assert written(work, "killed") == quiet


def test_stop_tokens(work, quiet):
    first = responses(work / "quiet.jsonl")[0]["token_ids"]
    evaluate(work, "stopped", "--stop-tokens", first[3], "--responses", work / "stopped.jsonl")
    line = responses(work / "stopped.jsonl")[0]
    assert line["stopped"] and line["token_ids"] == first[: first.index(first[3]) + 1]
    config = work / "model" / "generation_config.json"
    config.write_text(json.dumps({"eos_token_id": [first[3]]}))
    try:
        evaluate(work, "configured", "--responses", work / "configured.jsonl")
        assert (work / "configured.jsonl").read_text() == (work / "stopped.jsonl").read_text()
        evaluate(work, "none", "--stop-tokens", "none", "--responses", work / "none.jsonl")
        assert (work / "none.jsonl").read_text() == (work / "quiet.jsonl").read_text()
    finally:
        config.unlink()


def test_short_texts_are_warned_of(work):
    done = evaluate(work, "short", generate=1)
    assert "answers are longer than the 1 tokens of --generate" in done.stderr
    with h5py.File(work / "short" / "results.h5") as file:
        assert np.isnan(file["evaluation/decode_rate"][:]).all()
        assert "no token was decoded" in file["evaluation/decode_rate"].attrs["status"]


@pytest.mark.parametrize(
    "flags, code, words",
    [
        (["--stop-tokens", "64"], 64, ["--stop-tokens", "64"]),
        (["--stop-tokens", "1,,2"], 64, ["--stop-tokens"]),
        (["--stop-tokens", "x"], 64, ["--stop-tokens"]),
        (["--responses", "nowhere/out.jsonl"], 73, ["--responses", "nowhere/out.jsonl"]),
        (["--responses", "."], 73, ["--responses"]),
    ],
)
def test_bad_flags(work, flags, code, words):
    done = launch.run(arguments(work, "bad", *flags), work / "cache")
    assert done.returncode == code, done.stderr
    (line,) = launch.error_lines(done.stderr)
    assert all(word in line for word in words)
    assert not (work / "bad").exists()


@pytest.mark.parametrize("kept", ["random.h5", "model/config.json", "quiet/results.h5", "quiet/run.json"])
def test_responses_never_replace_what_the_command_needs(work, quiet, kept):
    before = (work / kept).read_bytes()
    # Another spelling of the same file.
    done = launch.run(arguments(work, "quiet", "--responses", work / "model" / ".." / kept), work / "cache")
    assert done.returncode == 64, done.stderr
    (line,) = launch.error_lines(done.stderr)
    assert "--responses" in line and "another name" in line
    assert (work / kept).read_bytes() == before


@pytest.mark.parametrize("flags", [["--responses", "out.jsonl"], ["--stop-tokens", "1"]])
def test_flags_that_need_generate(work, flags):
    words = arguments(work, "bad", *flags)
    at = words.index("--generate")
    done = launch.run(words[:at] + words[at + 2 :], work / "cache")
    assert done.returncode == 64 and "--generate" in done.stderr
    assert not pathlib.Path("out.jsonl").exists()


@pytest.mark.parametrize("number", ["0", "-1", "1.5", "many"])
def test_numbers_of_tokens_that_are_none(work, number):
    assert launch.run(arguments(work, "bad", generate=number), work / "cache").returncode == 64

"""The program: flags, the texts and their examples, the scores to a file and a table."""

import argparse
import hashlib
import json
import pathlib
import sys
from typing import BinaryIO

from winnow import __version__
from winnow.common.errors import ExitCode, Failure
from winnow.common.output import Kind, check_output, write_whole
from winnow.common.program import Parser, Program, say
from winnow.common.scoring import METRICS
from winnow.common.text import clean, one_line
from winnow.prepare import outputs
from winnow.score import answers, budget, judge
from winnow.score.results import SEED, Budget, Results, as_json, as_text, collect

DESCRIPTION = """Judges what the patterns of winnow evaluate wrote by the metric that the calibration file names, and
compares the patterns: per task and length of prompt, with intervals."""

EPILOG = """The calibration file is one of winnow prepare --format or --generate-task. Scores are from 0 to 1;
results/README.md defines each metric. Differences are paired by example, intervals are of 95 % (bootstrap over
examples).

LongMemEval is judged by a model of language, which is not winnow's: --hypotheses writes the texts in the form that its
evaluate_qa.py reads, --verdicts reads what that wrote.

Exit codes: 0 done, 64 flags, 65 bad data, 66 input missing, 69 Python packages missing, 73 cannot create output, 74 I/O
error.

Example:
  winnow evaluate --model M --data ruler.h5 ... --generate 64 --responses texts.jsonl --out run
  winnow score texts.jsonl --data ruler.h5 --model M --evaluation run --out scores.json --figure scores.svg
"""


def _is_scores(file: BinaryIO) -> bool:
    try:
        return bool(json.load(file).get("format") == "winnow-scores")
    except (ValueError, RecursionError, AttributeError):
        return False


def _is_hypotheses(file: BinaryIO) -> bool:
    try:
        return {"question_id", "hypothesis", "pattern"} <= json.loads(file.readline()).keys()
    except (ValueError, RecursionError, AttributeError):
        return False


def _is_figure(file: BinaryIO) -> bool:
    return file.read(8).startswith((b"<svg", b"\x89PNG"))


SCORES = Kind("file of scores", _is_scores)
HYPOTHESES = Kind("file of hypotheses", _is_hypotheses)
FIGURE = Kind("figure", _is_figure)
PROGRAM = Program(
    name="winnow-score",
    prefix="winnow: score: ",
    interrupted=(ExitCode.INTERRUPTED, "interrupted, nothing was written"),
    out_of_memory="score fewer patterns at once",
)


class Options(argparse.Namespace):
    """The command line."""

    responses: pathlib.Path
    data: pathlib.Path
    model: pathlib.Path | None
    out: pathlib.Path | None
    evaluation: pathlib.Path | None
    figure: pathlib.Path | None
    metric: str | None
    baseline: str | None
    hypotheses: pathlib.Path | None
    verdicts: pathlib.Path | None
    seed: int
    json: bool


def parse(arguments: list[str]) -> Options:
    flags = Parser(say=say, prog="winnow score", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False)
    path = pathlib.Path
    flags.add_argument(
        "responses", type=path, metavar="RESPONSES", help="what winnow evaluate --responses wrote, decoded or not"
    )
    flags.add_argument(
        "--data", type=path, required=True, metavar="FILE", help="the calibration file that was evaluated"
    )
    flags.add_argument(
        "--model", type=path, metavar="DIR", help="the checkpoint: its tokenizer makes text of token ids"
    )
    flags.add_argument("--out", type=path, metavar="FILE", help="scores as JSON, also of each example")
    flags.add_argument(
        "--evaluation",
        type=path,
        metavar="RUN_DIR",
        help="of winnow evaluate: adds the KV cache of each pattern and the front",
    )
    flags.add_argument(
        "--figure", type=path, metavar="FILE", help="with --evaluation: score against KV cache, .svg or .png"
    )
    flags.add_argument(
        "--metric", choices=METRICS[:-1], metavar="NAME", help=f"instead of the file's: {', '.join(METRICS[:-1])}"
    )
    flags.add_argument("--baseline", metavar="PATTERN", help="pattern to compare with (default: full, if it is there)")
    flags.add_argument("--hypotheses", type=path, metavar="FILE", help="writes the texts for LongMemEval's judge")
    flags.add_argument("--verdicts", type=path, metavar="FILE", help="what the judge made of them")
    flags.add_argument("--seed", type=int, default=SEED, metavar="N", help="of the intervals (default 0)")
    flags.add_argument("--json", action="store_true", help="the scores as JSON on standard output")
    flags.add_argument("--version", action="version", version=f"winnow-score {__version__}")
    options = flags.parse_args(arguments, namespace=Options())
    if options.figure and (not options.evaluation or options.figure.suffix not in (".svg", ".png")):
        raise Failure(
            ExitCode.USAGE, f"--figure {options.figure}: needs --evaluation and a name that ends with .svg or .png"
        )
    if options.seed < 0:
        raise Failure(ExitCode.USAGE, f"--seed {options.seed} is below 0")
    return options


def score(options: Options) -> None:
    """Writes what the flags ask for. Raises Failure."""
    inputs = [path for path in (options.responses, options.data, options.verdicts) if path]
    models = [options.model] if options.model else []
    wanted = [(options.out, SCORES, "--out"), (options.figure, FIGURE, "--figure")]
    for path, kind, flag in [*wanted, (options.hypotheses, HYPOTHESES, "--hypotheses")]:
        if path:
            check_output(path, kind, inputs, models, flag)
    texts = answers.read_texts(options.responses, options.model)
    examples = answers.check(
        texts, answers.read_examples(options.data, options.metric), options.responses, options.data
    )
    verdicts = judge.read_verdicts(options.verdicts, texts) if options.verdicts else {}
    budgets = budget.read(options.evaluation, list(texts)) if options.evaluation else {}
    results = collect(texts, examples, verdicts, budgets, _baseline(options, list(texts)), options.seed)
    _write(options, results, texts, budgets)


def _baseline(options: Options, patterns: list[str]) -> str | None:
    if options.baseline and options.baseline not in patterns:
        raise Failure(ExitCode.USAGE, f"--baseline {options.baseline}: the patterns are {', '.join(patterns)}")
    return options.baseline or ("full" if "full" in patterns and len(patterns) > 1 else None)


def _write(options: Options, results: Results, texts: answers.Texts, budgets: dict[str, Budget]) -> None:
    said = as_json(results) | {"created_by": f"winnow-score {__version__}"}
    said |= {
        f"{name}_sha256": _sha256(path) for name, path in (("data", options.data), ("responses", options.responses))
    }
    files: dict[pathlib.Path, bytes] = {}
    if options.out:
        files[options.out] = (json.dumps(said, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "replace")
    if options.hypotheses:
        files[options.hypotheses] = judge.hypotheses(texts)
    if options.figure:
        from winnow.score import figure  # what draws takes a moment to load

        files[options.figure] = figure.draw(results, options.figure.suffix[1:])
    if files:
        write_whole(files)
    n_waiting = sum(1 for column in results.scores.T if (column != column).any())
    text = json.dumps(said, ensure_ascii=False) if options.json else clean(as_text(results))
    if n_waiting and not options.json:
        text += f"\n{n_waiting} examples wait for a judge: --hypotheses, then --verdicts; or --metric contains_any"
    if files and not options.json:
        text += "\n\nWritten: " + ", ".join(map(one_line, files))
    outputs.say(text.strip("\n"), list(files))


def _sha256(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    return PROGRAM.run_for_winnow(lambda: score(parse(sys.argv[1:] if arguments is None else arguments)))

"""The command line of winnow prepare."""

import argparse
import datetime
import hashlib
import json
import os
import pathlib

from winnow import __version__
from winnow.common.errors import ExitCode, Failure
from winnow.common.program import Parser, say
from winnow.prepare import flag_values as values
from winnow.prepare.benchmarks.layouts import names
from winnow.prepare.generators.layouts import TASKS
from winnow.prepare.rows.conversations import COLUMNS

DESCRIPTION = """Conversations, benchmarks or tasks that are made to a calibration file: the answers of long prompts as
token ids, by the model's own tokenizer and chat template. Shows exactly which tokens will be scored."""

EPILOG = """Rows are told by their columns: messages (LongAlign; ShareGPT's conversations too), prompt and answer
(fusang), haystack_sessions, question and answer (LongMemEval), context, question and answer, instruction, input and
output (Alpaca), text and answer. Other names: --field. What no column is found for is named in the summary; a row whose
context or input would be left out of the prompt is refused.

Exit codes: 0 done, 64 flags, 65 bad data, 66 input missing, 69 Python packages missing, 71 out of memory, 73 cannot
create output, 74 I/O error, 75 interrupted (nothing was written).

Example:
  winnow prepare --model /models/Qwen3-4B --input LongAlign-10k.jsonl --out long.h5 --control-short short.h5
  winnow prepare --model /models/Qwen3-4B --format longbench2 --input data.json --out longbench2.h5
  winnow prepare --model /models/Qwen3-4B --generate-task ruler:vt --task-tokens 4096 16384 --out tracking.h5
"""
# What apply_chat_template takes itself.
RESERVED = {
    "conversation",
    "messages",
    "tools",
    "chat_template",
    "add_generation_prompt",
    "continue_final_message",
    "sanitize_control_tokens",
    "strftime_now",
    "tokenize",
    "padding",
    "truncation",
    "max_length",
    "return_tensors",
    "return_dict",
    "return_assistant_tokens_mask",
    "tokenizer_kwargs",
}


class Options(argparse.Namespace):
    """The command line, checked."""

    model: pathlib.Path
    input: list[str]
    out: pathlib.Path
    decode_responses: pathlib.Path | None
    force: bool
    config: str | None
    format: str | None
    generate_task: list[str] | None
    task_tokens: list[int] | None
    haystack: list[str]
    task_prompts: dict[str, str] | None
    field: dict[str, str]
    every_turn: bool
    system: str
    strict: bool
    template: pathlib.Path | None
    template_arg: dict[str, object]
    raw: bool
    separator: str
    think: str
    no_end_of_turn: bool
    date: datetime.date
    count: int | None
    min_prompt_tokens: int
    max_prompt_tokens: int
    min_answer_tokens: int
    max_answer_tokens: int | None
    length_bins: int
    quota: dict[str, int]
    split: str
    held_out_share: float
    seed: int
    control_short: pathlib.Path | None
    control_from: str
    control_tokens: int
    processes: int
    json: bool

    def other_inputs(self) -> list[pathlib.Path]:
        """Files that are read beside the data and the model."""
        return [pathlib.Path(path) for path in (self.template, self.config, *self.haystack) if path is not None]


def _files(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("files")
    group.add_argument("--model", type=pathlib.Path, metavar="DIR", help="checkpoint directory; its tokenizer is used")
    group.add_argument(
        "--input",
        nargs="+",
        action="extend",
        metavar="FILE|DIR",
        help="JSON Lines (also .gz, .zst, or through a pipe) or Parquet, or a directory of them; hidden files "
        "of a directory are left out",
    )
    group.add_argument("--out", type=pathlib.Path, metavar="FILE", help="calibration file to write")
    group.add_argument(
        "--decode-responses",
        type=pathlib.Path,
        metavar="FILE",
        help="instead of all this: write to --out what winnow evaluate --responses wrote, with a text to "
        "each line of token ids",
    )
    group.add_argument("--force", action="store_true", help="replace older outputs of winnow prepare")
    group.add_argument("--config", metavar="FILE", help="YAML file of flags under the same names; flags given here win")


def _reading(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("reading")
    group.add_argument(
        "--format",
        choices=names(),
        metavar="NAME",
        help=f"files of a benchmark: {', '.join(names())}. The reference answers, the metric, the task and the bin of "
        "lengths stand in the calibration file, for winnow score; prompts and answers of all lengths are taken "
        "(--min-prompt-tokens and --min-answer-tokens 1)",
    )
    group.add_argument(
        "--task-prompts",
        type=values.prompts,
        metavar="FILE",
        help="with --format: JSON of {task: prompt}, with {context}, {input} and what else the task has, in place of "
        "the prompts that winnow has for it (LongBench's own are in its config/dataset2prompt.json)",
    )
    group.add_argument(
        "--field",
        type=values.field,
        action="append",
        default=[],
        metavar="NAME=COLUMN",
        help=f"where to find a field; NAME is one of {', '.join(COLUMNS)}; COLUMN may be a path a.b, a.0 the first of "
        "a list, and nothing (NAME=) means that there is no such field",
    )
    group.add_argument(
        "--every-turn", action="store_true", help="each turn of the assistant is an answer (default: the last one)"
    )
    group.add_argument(
        "--system",
        metavar="keep|none|TEXT",
        default="keep",
        type=values.as_text,
        help="the system's message: as in the data, removed, or this text instead (default keep)",
    )
    group.add_argument(
        "--strict",
        action="store_true",
        help="stop at the first row that cannot be used (default: leave it out and count it)",
    )


def _tasks(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("tasks that are made")
    group.add_argument(
        "--generate-task",
        nargs="+",
        choices=sorted(TASKS),
        metavar="TASK",
        help=f"instead of --input: makes examples of these tasks, --count in all: {', '.join(TASKS)}",
    )
    group.add_argument(
        "--task-tokens",
        type=values.at_least(16),
        nargs="+",
        metavar="N",
        help="prompts of at most so many tokens, as many of each (default: --max-prompt-tokens); of --format nolima "
        "and repoqa, too, whose prompts are made from a text",
    )
    group.add_argument(
        "--haystack",
        nargs="+",
        default=[],
        metavar="FILE|DIR",
        help="texts to hide things in: for --format nolima and mrcr:N, and else instead of sentences that say nothing",
    )


def _rendering(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("chat template")
    group.add_argument(
        "--template", type=pathlib.Path, metavar="FILE", help="Jinja chat template instead of the model's"
    )
    group.add_argument(
        "--template-arg",
        type=values.pair,
        action="append",
        default=[],
        metavar="NAME=JSON",
        help="variable of the template, for example enable_thinking=false",
    )
    group.add_argument("--raw", action="store_true", help="no template: prompt and answer as they are (base models)")
    group.add_argument(
        "--separator", default="", type=values.as_text, metavar="TEXT", help="with --raw: between prompt and answer"
    )
    group.add_argument(
        "--think",
        choices=("empty", "none", "given"),
        default="empty",
        help="think block before the answer: empty as the template makes it, none at all, or with the "
        "reasoning that the data give. It belongs to the prompt and is never scored (default empty)",
    )
    group.add_argument(
        "--no-end-of-turn", action="store_true", help="do not score the token that ends the answer (default: scored)"
    )
    group.add_argument(
        "--date",
        type=values.date,
        default=datetime.date(2024, 7, 26),
        metavar="YYYY-MM-DD",
        help="today, for templates that tell the date (default 2024-07-26, so that tokens never change)",
    )


def _choosing(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("choosing")
    group.add_argument("--count", type=values.count, default=64, metavar="N|all", help="examples to keep (default 64)")
    group.add_argument("--min-prompt-tokens", type=values.at_least(1), metavar="N", help="default 16384, of tasks 1")
    group.add_argument("--max-prompt-tokens", type=values.at_least(1), default=32768, metavar="N", help="default 32768")
    group.add_argument(
        "--min-answer-tokens",
        type=values.at_least(1),
        metavar="N",
        help="end of turn not counted (default 20, of tasks 1)",
    )
    group.add_argument("--max-answer-tokens", type=values.at_least(1), metavar="N", help="default: no limit")
    group.add_argument(
        "--length-bins",
        type=values.at_least(1),
        default=1,
        metavar="N",
        help="equal numbers from N equal ranges of prompt length (default 1)",
    )
    group.add_argument(
        "--quota",
        type=values.pair,
        action="append",
        default=[],
        metavar="SOURCE=N",
        help="at most N examples of that source; * means every other one",
    )
    group.add_argument(
        "--split",
        choices=("all", "calibration", "held-out"),
        default="all",
        help="only that part of the rows; a hash of the first message decides, so the two never overlap",
    )
    group.add_argument("--held-out-share", type=values.share, default=0.5, metavar="X", help="of the rows; default 0.5")
    group.add_argument("--seed", type=values.seed, default=0, metavar="N", help="of the draw (default 0)")


def _control(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("control set of short prompts")
    group.add_argument("--control-short", type=pathlib.Path, metavar="FILE", help="control file to write as well")
    group.add_argument(
        "--control-from",
        choices=("cut", "data"),
        default="cut",
        help="the same examples with the middle of the prompt removed, or short examples of the input (default cut)",
    )
    group.add_argument(
        "--control-tokens",
        type=values.at_least(16),
        default=4096,
        metavar="N",
        help="longest prompt of the control, in tokens; longer than the window, or there is nothing to "
        "measure. From data: at least half of it (default 4096)",
    )


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(
        say=say,
        prog="winnow prepare",
        description=DESCRIPTION,
        epilog=EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"winnow-prepare {__version__}")
    for add in (_files, _reading, _tasks, _rendering, _choosing, _control):
        add(parser)
    group = parser.add_argument_group("running")
    group.add_argument(
        "--processes",
        type=values.at_least(1),
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="worker processes; no influence on the result (default: all cores)",
    )
    group.add_argument("--json", action="store_true", help="the summary as JSON")
    return parser


def parse(arguments: list[str]) -> Options:
    """Raises Failure."""
    parser = make_parser()
    options = parser.parse_args(values.with_config(arguments), namespace=Options())
    is_read = not (options.decode_responses or options.generate_task)
    needed = ("model", "input", "out") if is_read else ("model", "out")
    for name in needed:
        if not getattr(options, name):
            raise Failure(ExitCode.USAGE, f"--{name} is missing (see winnow prepare --help)")
    if options.decode_responses and options.input:
        raise Failure(ExitCode.USAGE, "--decode-responses and --input exclude each other")
    _check_format(options)
    if options.raw and options.template:
        raise Failure(ExitCode.USAGE, "--raw and --template exclude each other")
    if options.separator and not options.raw:
        raise Failure(ExitCode.USAGE, "--separator needs --raw: a template says itself what stands before the answer")
    if options.max_prompt_tokens < options.min_prompt_tokens:
        raise Failure(
            ExitCode.USAGE,
            f"--max-prompt-tokens {options.max_prompt_tokens} is below --min-prompt-tokens {options.min_prompt_tokens}",
        )
    if options.max_answer_tokens is not None and options.max_answer_tokens < options.min_answer_tokens:
        raise Failure(
            ExitCode.USAGE,
            f"--max-answer-tokens {options.max_answer_tokens} is below --min-answer-tokens {options.min_answer_tokens}",
        )
    if options.control_short and options.control_tokens >= options.min_prompt_tokens:
        raise Failure(
            ExitCode.USAGE,
            f"--control-tokens {options.control_tokens} is not below --min-prompt-tokens "
            f"{options.min_prompt_tokens}: the control would not be shorter",
        )
    if options.count is not None and options.length_bins > options.count:
        raise Failure(
            ExitCode.USAGE,
            f"--length-bins {options.length_bins} is more than --count {options.count}: some would hold no example",
        )
    n_lengths = options.max_prompt_tokens - options.min_prompt_tokens + 1
    if options.length_bins > n_lengths:
        raise Failure(
            ExitCode.USAGE,
            f"--length-bins {options.length_bins} is more than the {n_lengths} lengths from "
            f"--min-prompt-tokens to --max-prompt-tokens",
        )
    if options.control_short and options.control_short.resolve() == options.out.resolve():
        raise Failure(ExitCode.USAGE, "--out and --control-short name the same file")
    options.field = dict(options.field)
    for name in options.field.keys() - COLUMNS.keys():
        raise Failure(ExitCode.USAGE, f"--field {name}: the names are {', '.join(COLUMNS)}")
    quotas: list[tuple[str, str]] = options.quota  # type: ignore[assignment]  # pairs until here
    template_arguments: list[tuple[str, str]] = options.template_arg  # type: ignore[assignment]
    options.quota = {name: _quota(name, value) for name, value in quotas}
    options.template_arg = {name: _json(name, value) for name, value in template_arguments}
    for name in options.template_arg.keys() & RESERVED:
        raise Failure(ExitCode.USAGE, f"--template-arg {name}: is not the caller's to set")
    return options


def _check_format(options: Options) -> None:
    if options.format and (options.field or options.every_turn):
        raise Failure(ExitCode.USAGE, "--format says where everything is: without --field and --every-turn")
    if options.task_prompts and not options.format:
        raise Failure(ExitCode.USAGE, "--task-prompts needs --format")
    if options.generate_task and (options.input or options.format or options.decode_responses):
        raise Failure(ExitCode.USAGE, "--generate-task is instead of --input, --format and --decode-responses")
    if options.generate_task and (options.split != "all" or options.count is None):
        raise Failure(ExitCode.USAGE, "--generate-task needs a --count, and makes other examples by another --seed")
    if options.format == "nolima" and not options.haystack:
        raise Failure(ExitCode.USAGE, "--format nolima needs --haystack: a text to hide its needles in")
    if options.task_tokens:
        options.max_prompt_tokens = max(options.task_tokens)
    is_task = bool(options.format or options.generate_task)
    if options.min_prompt_tokens is None:
        options.min_prompt_tokens = 1 if is_task else 16384
    if options.min_answer_tokens is None:
        options.min_answer_tokens = 1 if is_task else 20


def _quota(name: str, value: str) -> int:
    try:
        return values.at_least(0)(value)
    except argparse.ArgumentTypeError as error:
        raise Failure(ExitCode.USAGE, f"--quota {name}: {error}") from error


def _json(name: str, value: str) -> object:
    try:
        found: object = json.loads(value)
    except (ValueError, RecursionError):
        return value  # a plain word is a string
    try:
        values.as_text(json.dumps(found, ensure_ascii=False))
    except argparse.ArgumentTypeError as error:
        raise Failure(ExitCode.USAGE, f"--template-arg {name}: {error}") from error
    return found


def settings(options: Options) -> dict[str, object]:
    """What decides which tokens are in the file, for its attribute `filters`: paths by name only."""
    left_out = {
        "model",
        "input",
        "out",
        "force",
        "config",
        "strict",
        "processes",
        "json",
        "seed",
        "control_short",
        "template",
        "decode_responses",
        "format",
        "task_prompts",
        "generate_task",
        "task_tokens",
        "haystack",
    }
    chosen = {name: value for name, value in vars(options).items() if name not in left_out}
    if options.format or options.generate_task:
        chosen |= {"generate_task": options.generate_task, "task_tokens": options.task_tokens}
        chosen["haystack"] = [pathlib.Path(name).name for name in options.haystack]
        prompts = options.task_prompts and json.dumps(options.task_prompts, sort_keys=True).encode()
        chosen |= {"format": options.format, "task_prompts_sha256": prompts and hashlib.sha256(prompts).hexdigest()}
    chosen["date"] = options.date.isoformat()
    chosen["input"] = [pathlib.Path(name).name.encode("utf-8", "replace").decode() for name in options.input or []]
    chosen["end_of_turn"] = not chosen.pop("no_end_of_turn")
    return chosen

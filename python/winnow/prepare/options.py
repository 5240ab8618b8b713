"""The command line of winnow prepare."""

import argparse
import datetime
import json
import os
import pathlib
from collections.abc import Callable

from winnow import __version__
from winnow.common.errors import ExitCode, Failure
from winnow.common.program import Parser, say
from winnow.prepare.rows.conversations import COLUMNS

DESCRIPTION = """Conversations to a calibration file: the answers of long prompts as token ids, by the model's own
tokenizer and chat template. Shows exactly which tokens will be scored."""

EPILOG = """Rows are told by their columns: messages (LongAlign; ShareGPT's conversations too), prompt and answer
(fusang), haystack_sessions, question and answer (LongMemEval), context, question and answer, instruction, input and
output (Alpaca), text and answer. Other names: --field. What no column is found for is named in the summary; a row whose
context or input would be left out of the prompt is refused.

Exit codes: 0 done, 64 flags, 65 bad data, 66 input missing, 69 Python packages missing, 71 out of memory, 73 cannot
create output, 74 I/O error, 75 interrupted (nothing was written).

Example:
  winnow prepare --model /models/Qwen3-4B --input LongAlign-10k.jsonl --out long.h5 --control-short short.h5
"""
LARGEST_SEED = 2**63 - 1
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
        return [pathlib.Path(path) for path in (self.template, self.config) if path is not None]


def _count(text: str) -> int | None:
    if text == "all":
        return None
    return _at_least(1)(text)


def _at_least(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from {least} on")
        return value

    return parse


def _seed(text: str) -> int:
    value = _at_least(0)(text)
    if value > LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"'{text}' is over {LARGEST_SEED}, the largest that the file can hold")
    return value


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not UTF-8") from error
    return text


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number between 0 and 1")
    return value


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = _text(text).partition("=")
    if not (name and separator and value):
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE")
    return name, value


def _field(text: str) -> tuple[str, str]:
    name, separator, column = _text(text).partition("=")
    if not (name and separator):
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=COLUMN")
    return name, column


def _date(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is not a date such as 2026-11-24") from error


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
        "--field",
        type=_field,
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
        type=_text,
        help="the system's message: as in the data, removed, or this text instead (default keep)",
    )
    group.add_argument(
        "--strict",
        action="store_true",
        help="stop at the first row that cannot be used (default: leave it out and count it)",
    )


def _rendering(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("chat template")
    group.add_argument(
        "--template", type=pathlib.Path, metavar="FILE", help="Jinja chat template instead of the model's"
    )
    group.add_argument(
        "--template-arg",
        type=_pair,
        action="append",
        default=[],
        metavar="NAME=JSON",
        help="variable of the template, for example enable_thinking=false",
    )
    group.add_argument("--raw", action="store_true", help="no template: prompt and answer as they are (base models)")
    group.add_argument(
        "--separator", default="", type=_text, metavar="TEXT", help="with --raw: between prompt and answer"
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
        type=_date,
        default=datetime.date(2024, 7, 26),
        metavar="YYYY-MM-DD",
        help="today, for templates that tell the date (default 2024-07-26, so that tokens never change)",
    )


def _choosing(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("choosing")
    group.add_argument("--count", type=_count, default=64, metavar="N|all", help="examples to keep (default 64)")
    group.add_argument("--min-prompt-tokens", type=_at_least(1), default=16384, metavar="N", help="default 16384")
    group.add_argument("--max-prompt-tokens", type=_at_least(1), default=32768, metavar="N", help="default 32768")
    group.add_argument(
        "--min-answer-tokens", type=_at_least(1), default=20, metavar="N", help="end of turn not counted (default 20)"
    )
    group.add_argument("--max-answer-tokens", type=_at_least(1), metavar="N", help="default: no limit")
    group.add_argument(
        "--length-bins",
        type=_at_least(1),
        default=1,
        metavar="N",
        help="equal numbers from N equal ranges of prompt length (default 1)",
    )
    group.add_argument(
        "--quota",
        type=_pair,
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
    group.add_argument("--held-out-share", type=_share, default=0.5, metavar="X", help="of the rows (default 0.5)")
    group.add_argument("--seed", type=_seed, default=0, metavar="N", help="of the draw (default 0)")


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
        type=_at_least(16),
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
    for add in (_files, _reading, _rendering, _choosing, _control):
        add(parser)
    group = parser.add_argument_group("running")
    group.add_argument(
        "--processes",
        type=_at_least(1),
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="worker processes; no influence on the result (default: all cores)",
    )
    group.add_argument("--json", action="store_true", help="the summary as JSON")
    return parser


def parse(arguments: list[str]) -> Options:
    """Raises Failure."""
    parser = make_parser()
    options = parser.parse_args(_with_config(arguments), namespace=Options())
    needed = ("model", "out") if options.decode_responses else ("model", "input", "out")
    for name in needed:
        if not getattr(options, name):
            raise Failure(ExitCode.USAGE, f"--{name} is missing (see winnow prepare --help)")
    if options.decode_responses and options.input:
        raise Failure(ExitCode.USAGE, "--decode-responses and --input exclude each other")
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


def _quota(name: str, value: str) -> int:
    try:
        return _at_least(0)(value)
    except argparse.ArgumentTypeError as error:
        raise Failure(ExitCode.USAGE, f"--quota {name}: {error}") from error


def _json(name: str, value: str) -> object:
    try:
        found: object = json.loads(value)
    except (ValueError, RecursionError):
        return value  # a plain word is a string
    try:
        _text(json.dumps(found, ensure_ascii=False))
    except argparse.ArgumentTypeError as error:
        raise Failure(ExitCode.USAGE, f"--template-arg {name}: {error}") from error
    return found


def _with_config(arguments: list[str]) -> list[str]:
    """Flags of the file that --config names, before those of the command line."""
    path = None
    for number, word in enumerate(arguments):
        if word == "--config" and number + 1 < len(arguments):
            path = arguments[number + 1]
        elif word.startswith("--config="):
            path = word.partition("=")[2]
    if path is None:
        return arguments
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            values = yaml.safe_load(file)
    except OSError as error:
        raise Failure(ExitCode.NO_INPUT, f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Failure(ExitCode.USAGE, f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise Failure(ExitCode.USAGE, f"{path}: expected lines such as count: 64")
    given = {word.partition("=")[0] for word in arguments}
    flags = []
    for name, value in values.items():
        flag = f"--{name}"
        if flag in given or value is False:
            continue
        if value is True:
            flags.append(flag)
        else:
            for item in value if isinstance(value, list) else [value]:
                flags += [f"{flag}={item}"]
    return flags + arguments


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
    }
    values = {name: value for name, value in vars(options).items() if name not in left_out}
    values["date"] = options.date.isoformat()
    values["input"] = [pathlib.Path(name).name.encode("utf-8", "replace").decode() for name in options.input]
    values["end_of_turn"] = not values.pop("no_end_of_turn")
    return values

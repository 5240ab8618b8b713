"""The texts of the token ids that `winnow evaluate --responses` wrote, for a judge that reads text."""

import json
import pathlib
from collections.abc import Iterator

from winnow.common.errors import ExitCode, Failure
from winnow.common.output import write_whole
from winnow.common.text import one_line
from winnow.prepare.options import Options
from winnow.prepare.outputs import TEXTS, check_output, say
from winnow.prepare.tokens.tokenise import load_tokenizer, vocabulary_size


def read_lines(path: pathlib.Path) -> Iterator[tuple[str, object]]:
    """(place, what it says) of each line that is not empty."""
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    place = f"{path}:{number}"
                    try:
                        yield place, json.loads(line)
                    except (ValueError, RecursionError) as error:
                        raise Failure(ExitCode.BAD_DATA, f"{place}: not JSON: {str(error)[:100]}") from error
    except OSError as error:
        raise Failure(ExitCode.NO_INPUT, f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Failure(ExitCode.BAD_DATA, f"{path}: not UTF-8: {error.reason} at byte {error.start}") from error


def token_ids(place: str, line: object, n_tokens: int) -> tuple[dict[str, object], list[int]]:
    """The line and its ids, below n_tokens. Raises Failure."""
    ids = line.get("token_ids") if isinstance(line, dict) else None
    if not isinstance(line, dict) or not isinstance(ids, list):
        raise Failure(
            ExitCode.BAD_DATA,
            f"{place}: expected an object with a list token_ids, as winnow evaluate --responses writes it",
        )
    for token in ids:
        if type(token) is not int or not 0 <= token < n_tokens:
            raise Failure(
                ExitCode.BAD_DATA,
                f"{place}: token_ids: expected tokens below {n_tokens}, found "
                f"{json.dumps(token)[:50]}; is --model the model that wrote them?",
            )
    return line, ids


def decode(path: pathlib.Path, options: Options) -> None:
    """Writes options.out: each line of `path` with its `text`, special tokens left out. An id that the model knows and
    the tokenizer has no token for, as of rows that only fill a matrix up, adds nothing to it."""
    check_output(options.out, TEXTS, options.force, [path, *options.other_inputs()], options.model)
    tokenizer = load_tokenizer(options.model)
    n_ids = max(len(tokenizer), vocabulary_size(options.model) or 0)
    lines = []
    for place, found in read_lines(path):
        line, ids = token_ids(place, found, n_ids)
        text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        lines.append(_json(line | {"text": text}).encode() + b"\n")
    write_whole({options.out: b"".join(lines)})
    say(f"{len(lines)} texts\n\nWritten: {one_line(options.out)}", [options.out])


def _json(line: dict[str, object]) -> str:
    """Letters as they are, unless one is half a surrogate pair, which only an escape can write."""
    text = json.dumps(line, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(line)
    return text

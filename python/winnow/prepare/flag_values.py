"""Values of flags, as argparse takes them, and flags from a file."""

import argparse
import datetime
import json
from collections.abc import Callable

from winnow.common.errors import ExitCode, Failure

LARGEST_SEED = 2**63 - 1


def count(text: str) -> int | None:
    if text == "all":
        return None
    return at_least(1)(text)


def at_least(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from {least} on")
        return value

    return parse


def seed(text: str) -> int:
    value = at_least(0)(text)
    if value > LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"'{text}' is over {LARGEST_SEED}, the largest that the file can hold")
    return value


def as_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not UTF-8") from error
    return text


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number between 0 and 1")
    return value


def pair(text: str) -> tuple[str, str]:
    name, separator, value = as_text(text).partition("=")
    if not (name and separator and value):
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE")
    return name, value


def field(text: str) -> tuple[str, str]:
    name, separator, column = as_text(text).partition("=")
    if not (name and separator):
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=COLUMN")
    return name, column


def prompts(path: str) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict) or not all(isinstance(prompt, str) for prompt in found.values()):
        raise argparse.ArgumentTypeError(f"{path}: expected an object of {{task: prompt}}")
    return found


def date(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is not a date such as 2026-11-24") from error


def with_config(arguments: list[str]) -> list[str]:
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

"""The items of a JSON array, one after another, in the memory of the largest."""

import codecs
import io
import json
import re
from collections.abc import Iterator
from typing import BinaryIO

CHUNK_BYTES = 2**20
LONGEST_ITEM = 256 * 2**20
_BLANKS = re.compile(r"[\s,]*")


def items(file: BinaryIO | io.BufferedReader) -> Iterator[tuple[int, object]]:
    """(line, item) of each. Raises ValueError with the line where the file is no array, or not whole."""
    decode = codecs.getincrementaldecoder("utf-8-sig")().decode
    parse = json.JSONDecoder().raw_decode
    text, at, line, is_all = "", 0, 1, False

    def read(n_bytes: int) -> None:
        nonlocal text, at, is_all
        data = file.read(n_bytes)
        is_all = not data
        text, at = text[at:] + decode(data, final=is_all), 0

    def skip(pattern: re.Pattern[str]) -> str:
        """The next letter after what the pattern matches; "" at the end."""
        nonlocal at, line
        while True:
            match = pattern.match(text, at)
            end = match.end() if match else at
            line += text.count("\n", at, end)
            at = end
            if at < len(text) or is_all:
                return text[at : at + 1]
            read(CHUNK_BYTES)

    if skip(re.compile(r"\s*")) != "[":
        raise ValueError(f"line {line}: not an array")
    at += 1
    while (letter := skip(_BLANKS)) != "]":
        if not letter:
            raise ValueError(f"line {line}: the array does not end")
        while True:
            try:
                item, end = parse(text, at)
                break
            except (ValueError, RecursionError) as error:
                if is_all or len(text) - at > LONGEST_ITEM:
                    raise ValueError(f"line {line}: not JSON: {str(error)[:100]}") from error
                read(max(CHUNK_BYTES, len(text) - at))
        yield line, item
        line += text.count("\n", at, end)
        at = end

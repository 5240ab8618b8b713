"""LongMemEval's judge: the file of hypotheses that it reads, and the file of verdicts that it writes."""

import json
import pathlib

from winnow.common.errors import ExitCode, Failure
from winnow.prepare.responses import read_lines
from winnow.score.answers import Texts


def hypotheses(texts: Texts) -> bytes:
    """A line of JSON a text; the judge keeps keys that it does not know, so that its verdicts name the pattern, too."""
    return "".join(
        json.dumps({"question_id": name, "hypothesis": text, "pattern": pattern}) + "\n"
        for pattern, own in texts.items()
        for name, text in own.items()
    ).encode()


def read_verdicts(path: pathlib.Path, texts: Texts) -> dict[tuple[str, str], bool]:
    """{(pattern, example_id): whether the answer is right}. Raises Failure."""
    found: dict[tuple[str, str], bool] = {}
    for place, line in read_lines(path):
        label = line.get("autoeval_label") if isinstance(line, dict) else None
        verdict = label.get("label") if isinstance(label, dict) else label
        name = line.get("question_id") if isinstance(line, dict) else None
        if not isinstance(line, dict) or not isinstance(verdict, bool) or not isinstance(name, str):
            raise Failure(
                ExitCode.BAD_DATA,
                f"{place}: expected question_id and autoeval_label, as LongMemEval's judge writes them",
            )
        pattern = line.get("pattern", next(iter(texts)) if len(texts) == 1 else None)
        if not isinstance(pattern, str) or name not in texts.get(pattern, {}):
            raise Failure(
                ExitCode.BAD_DATA,
                f"{place}: no text of pattern {pattern} for {name} was judged; are these verdicts on --hypotheses?",
            )
        found[pattern, name] = verdict
    return found

"""What is scored: the examples of a calibration file, and the texts of the patterns."""

import dataclasses
import json
import pathlib

import h5py

from winnow.common.errors import ExitCode, Failure
from winnow.common.scoring import METRICS, Scoring
from winnow.prepare.responses import read_lines, token_ids
from winnow.prepare.tokens.tokenise import load_tokenizer, vocabulary_size
from winnow.report.reading import opening, probe

Texts = dict[str, dict[str, str]]  # {pattern: {example_id: text}}


@dataclasses.dataclass(frozen=True)
class Example:
    name: str
    length_bin: str
    scoring: Scoring


def read_examples(path: pathlib.Path, metric: str | None) -> list[Example]:
    """The examples of a calibration file, judged by that metric instead of the file's, if one is given. Raises
    Failure."""
    try:
        probe.check(path)
        with opening.read_only(path) as file:
            found = _examples(file, path)
    except Failure:
        raise
    except FileNotFoundError as error:
        raise Failure(ExitCode.NO_INPUT, f"{path}: no such file") from error
    except Exception as error:  # whatever a damaged file makes of the library
        raise Failure(ExitCode.BAD_DATA, f"{path}: not readable as a calibration file: {error}") from error
    if metric:
        found = [
            dataclasses.replace(one, scoring=dataclasses.replace(one.scoring, metric=metric, options={}))
            for one in found
        ]
    unknown = {one.scoring.metric for one in found} - set(METRICS)
    if unknown:
        raise Failure(
            ExitCode.BAD_DATA, f"{path}: metric {min(unknown)[:40]!r} is not known; use the winnow that wrote it"
        )
    return found


def _examples(file: h5py.File, path: pathlib.Path) -> list[Example]:
    if file.attrs.get("format") != "winnow-calibration":
        raise Failure(ExitCode.BAD_DATA, f"{path}: not a calibration file")
    if file.attrs.get("format_version") != 2:
        raise Failure(
            ExitCode.BAD_DATA,
            f"{path}: names no metric and no reference answers; winnow prepare --format and --generate-task write them",
        )
    names = ("example_id", "length_bin", "task", "metric", "gold_answer", "answer_prefix", "metric_options")
    columns = [file[name].asstr()[:].tolist() for name in names]
    references, offsets = file["references"].asstr()[:].tolist(), file["reference_offsets"][:].tolist()
    found = []
    for number, (name, bin_name, task, metric, gold, prefix, options) in enumerate(zip(*columns, strict=True)):
        own = tuple(references[offsets[number] : offsets[number + 1]])
        chosen = json.loads(options) if options else {}
        if not own or not isinstance(chosen, dict):
            raise Failure(
                ExitCode.BAD_DATA, f"{path}: example {name}: no references, or options that are no object; make it anew"
            )
        scoring = Scoring(task, metric, own, gold, prefix, bin_name, chosen)
        found.append(Example(name, bin_name, scoring))
    return found


def read_texts(path: pathlib.Path, model: pathlib.Path | None) -> Texts:
    """The texts of a file that winnow evaluate --responses or winnow prepare --decode-responses wrote. Raises
    Failure."""
    tokenizer = load_tokenizer(model) if model else None
    n_ids = max(len(tokenizer), vocabulary_size(model) or 0) if tokenizer and model else 0
    texts: Texts = {}
    for place, line in read_lines(path):
        if not isinstance(line, dict) or not all(isinstance(line.get(key), str) for key in ("pattern", "example_id")):
            raise Failure(
                ExitCode.BAD_DATA,
                f"{place}: expected pattern and example_id, as winnow evaluate --responses writes them",
            )
        if isinstance(line.get("text"), str):
            text = line["text"]
        elif tokenizer:
            _, ids = token_ids(place, line, n_ids)
            text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        else:
            raise Failure(ExitCode.USAGE, f"{place}: holds token ids; --model DIR makes text of them")
        if line["example_id"] in texts.setdefault(line["pattern"], {}):
            raise Failure(ExitCode.BAD_DATA, f"{place}: a second text of {line['pattern']} for {line['example_id']}")
        texts[line["pattern"]][line["example_id"]] = text
    if not texts:
        raise Failure(ExitCode.BAD_DATA, f"{path}: holds no text")
    return texts


def check(texts: Texts, examples: list[Example], responses: pathlib.Path, data: pathlib.Path) -> list[Example]:
    """The examples that were answered, in the file's order. Failure where patterns answered different ones, or ones
    that the file does not have."""
    by_name = {example.name: example for example in examples}
    first, answered = next(iter(texts.items()))
    for pattern, own in texts.items():
        for name in own.keys() - by_name.keys():
            raise Failure(
                ExitCode.BAD_DATA, f"{responses}: example {name} is not in {data}; is it the file that was evaluated?"
            )
        if own.keys() != answered.keys():
            raise Failure(ExitCode.BAD_DATA, f"{responses}: {pattern} answers other examples than {first}")
    return [example for example in examples if example.name in answered]

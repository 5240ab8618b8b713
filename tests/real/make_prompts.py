#!/usr/bin/env python3
"""Long prompts of real text, for `winnow prepare`: Python files of installed packages, and a question about one.

    make_prompts.py --model DIR --out DIR [--min-tokens 14000] [--max-tokens 26000] [--count 64] [--seed 0]
        [--kinds function,docstring,constants,sentence,class] [--control-tokens 4096 [--control target|ends]]

It writes calibration.jsonl and held-out.jsonl, rows of id, source (the kind), prompt and answer. No source file, nor a
copy of it, is in prompts of both. Kinds: "function" (repeat its definition), "docstring" (quote it), "constants" (the
values of some), and two whose answer is a short sentence: "sentence" (the first of a docstring) and "class" (that
defines a method).

With --control-tokens there are calibration-short.jsonl and held-out-short.jsonl, too: the same questions, under the
same ids, on that many tokens. What is asked for is among them ("target", what surrounds it), or the middle is cut out
and it may be lost ("ends", as `winnow prepare --control-short` cuts).

The same packages, tokenizer and seed give the same bytes.
"""

import argparse
import ast
import hashlib
import json
import pathlib
import random
import re
import sys
import sysconfig
from dataclasses import dataclass

import tokenizers

FILE_CHARACTERS = (1_000, 40_000)
LEFT_OUT = {"test", "tests", "_vendor", "vendor", "__pycache__", "generated"}
INTRODUCTION = "Here are source files. A question about one of them follows.\n\n"
CONSTANTS = 3  # asked for at once
ATTEMPTS = 200  # of drawing files and a question, for each prompt
MOST_FILLERS = 30  # files that are looked at for one that fits into what is left of a prompt
OVERHEAD = 100  # tokens of introduction, question and headings


@dataclass(frozen=True)
class Question:
    """answer: exactly what is to be said. lines: those of its file, from 1, that say it. names: what may be defined
    once only in a prompt."""

    kind: str
    text: str
    answer: str
    lines: tuple[int, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    name: str
    text: str
    tokens: int
    questions: dict[str, list[Question]]


def questions(name: str, text: str) -> dict[str, list[Question]]:
    """What can be asked about a file, by kind."""
    tree = ast.parse(text)
    lines = text.split("\n")  # ast.get_source_segment would split the text for each
    found: dict[str, list[Question]] = {kind: [] for kind in KINDS}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            _ask_function(found, name, node, "\n".join(lines[node.lineno - 1 : node.end_lineno]))
        elif isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("__"):
                    _ask_class(found, node, method)
    values = dict(_constants(tree, lines))
    chosen = list(values)[:CONSTANTS]
    if len(chosen) == CONSTANTS:
        found["constants"].append(
            Question(
                "constants",
                f"What are the values of {', '.join(chosen)} in {name}? Answer with one line NAME = VALUE for each.",
                "\n".join(f"{constant} = {values[constant][0]}" for constant in chosen),
                tuple(values[constant][1] for constant in chosen),
                tuple(chosen),
            )
        )
    return found


def _ask_function(found: dict[str, list[Question]], name: str, node: ast.FunctionDef, source: str) -> None:
    docstring = ast.get_docstring(node)
    lines = tuple(range(node.lineno, node.end_lineno + 1))
    if not node.decorator_list and 4 <= source.count("\n") <= 16:
        text = f"Find the function {node.name} in the files above and repeat its definition exactly."
        found["function"].append(Question("function", text, source, lines, (node.name,)))
    if not docstring or not docstring.isascii():
        return
    lines = tuple(range(node.lineno, node.body[0].end_lineno + 1))
    if 80 <= len(docstring) <= 600:
        text = f"Quote the docstring of the function {node.name} exactly, without its quotation marks."
        found["docstring"].append(Question("docstring", text, docstring, lines, (node.name,)))
    sentence = re.match(r"[A-Z][^\n.]{20,120}\.(?=\s|$)", docstring)
    if sentence:
        text = f"What is the first sentence of the docstring of the function {node.name} in {name}?"
        found["sentence"].append(Question("sentence", text, sentence[0], lines, (node.name,)))


def _ask_class(found: dict[str, list[Question]], node: ast.ClassDef, method: ast.FunctionDef) -> None:
    text = (
        f"Which class defines the method {method.name}? Answer in one sentence of the form: "
        f"The method {method.name} is defined by the class NAME."
    )
    answer = f"The method {method.name} is defined by the class {node.name}."
    found["class"].append(Question("class", text, answer, (node.lineno, method.lineno), (method.name,)))


def _constants(tree: ast.Module, lines: list[str]):
    """(name, (value as it is written, line)) of module constants that are short and on one line."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name, place = node.targets[0].id, node.value
            value = lines[place.lineno - 1][place.col_offset : place.end_col_offset]
            is_short = isinstance(place, ast.Constant) and place.lineno == place.end_lineno and len(value) <= 40
            if is_short and re.fullmatch(r"[A-Z][A-Z0-9_]{3,}", name):
                yield name, (value, node.lineno)


KINDS = ("function", "docstring", "constants", "sentence", "class")


def find_files(folders: list[pathlib.Path]) -> list[tuple[str, pathlib.Path]]:
    """(name in prompts, path) of the Python files below the folders, in order."""
    found = []
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            name = path.relative_to(folder)
            if not LEFT_OUT & set(name.parts) and not name.name.startswith(("test_", "_")):
                found.append((name.as_posix(), path))
    return found


class Library:
    """The files of one split, in a random order, read when they are needed."""

    def __init__(self, files, split: str, tokenizer: tokenizers.Tokenizer, draw: random.Random) -> None:
        self._files = list(files)
        draw.shuffle(self._files)
        self._split, self._tokenizer, self._next = split, tokenizer, 0
        self._sources: dict[str, Source | None] = {}  # None: of no use
        self._texts: dict[str, str] = {}  # packages carry copies of each other: the first name of each text

    def take(self, is_wanted, most_files: int | None = None) -> Source | None:
        """The next file that is wanted, from the beginning again after the last; None where no file is, or none of the
        next `most_files`."""
        for _ in self._files[:most_files]:
            name, path = self._files[self._next]
            self._next = (self._next + 1) % len(self._files)
            if name not in self._sources:
                self._sources[name] = self._read(name, path)
            source = self._sources[name]
            if source is not None and is_wanted(source):
                return source
        return None

    def _read(self, name: str, path: pathlib.Path) -> Source | None:
        try:
            text = path.read_text(encoding="ascii")
            if not FILE_CHARACTERS[0] <= len(text) <= FILE_CHARACTERS[1] or _split_of(text) != self._split:
                return None
            found = questions(name, text)
        except (OSError, ValueError, SyntaxError, RecursionError):
            return None
        if self._texts.setdefault(text, name) != name:
            return None
        return Source(name, text, count(self._tokenizer, text), found)


def _split_of(text: str) -> str:
    """By the text itself, so that copies under other names are in the same split."""
    return "held-out" if hashlib.sha256(text.encode()).digest()[0] < 128 else "calibration"


def count(tokenizer: tokenizers.Tokenizer, text: str) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False).ids)


def document(sources: list[Source]) -> str:
    return "".join(f"### {source.name}\n{source.text.rstrip()}\n\n" for source in sources)


def draw_prompt(library: Library, kind: str, flags, draw: random.Random, tokenizer) -> dict[str, object]:
    """A row, with what the control needs beside it."""
    for _ in range(ATTEMPTS):
        left = draw.randint(flags.min_tokens, flags.max_tokens) - OVERHEAD
        target = library.take(lambda source, most=left: source.questions[kind] and source.tokens <= most)
        sources = [target] if target else []
        while sources:
            left -= sources[-1].tokens
            filler = library.take(_Fits(left, [source.name for source in sources]), MOST_FILLERS)
            if filler is None:
                break
            sources.append(filler)
        draw.shuffle(sources)
        everything = document(sources)
        possible = (
            [question for question in target.questions[kind] if _is_unique(question, everything)] if target else []
        )
        if not possible:
            continue
        question = draw.choice(possible)
        prompt = INTRODUCTION + everything + question.text
        if flags.min_tokens <= count(tokenizer, prompt) <= flags.max_tokens:
            heading = document(sources[: sources.index(target)]).count("\n")
            lines = [heading, *(heading + line for line in question.lines)]
            return {"question": question, "document": everything, "lines": lines, "prompt": prompt}
    sys.exit(
        f"make_prompts.py: no prompt of kind {kind} with {flags.min_tokens} to {flags.max_tokens} tokens in {ATTEMPTS} "
        "attempts; widen the range, or name more --sources"
    )


@dataclass(frozen=True)
class _Fits:
    most_tokens: int
    but: list[str]

    def __call__(self, source: Source) -> bool:
        return source.tokens <= self.most_tokens and source.name not in self.but


def _is_unique(question: Question, everything: str) -> bool:
    """Whether each name that is asked for is defined once."""
    return all(
        len(re.findall(rf"(?:\bdef +|\bclass +|^ *){name}\s*[(=:]", everything, re.MULTILINE)) == 1
        for name in question.names
    )


def shorten(row: dict[str, object], flags, tokenizer) -> str:
    """The prompt on about flags.control_tokens tokens, whole lines of it."""
    lines = row["document"].splitlines(keepends=True)
    sizes = [len(each.ids) for each in tokenizer.encode_batch(lines, add_special_tokens=False)]
    left = flags.control_tokens - count(tokenizer, INTRODUCTION + row["question"].text)
    is_kept = [False] * len(lines)
    if flags.control == "ends":
        first, last = 0, len(lines) - 1  # from both ends inwards
        order = [n for pair in zip(range(first, last + 1), range(last, first - 1, -1), strict=True) for n in pair]
    else:
        begin, end = row["lines"][1], row["lines"][-1]  # from there outwards
        order = row["lines"] + [n for step in range(len(lines)) for n in (end + step, begin - 1 - step)]
    for n in order:
        if 0 <= n < len(lines) and not is_kept[n]:
            if sizes[n] > left:
                break
            is_kept[n] = True
            left -= sizes[n]
    kept = "".join(line for line, keep in zip(lines, is_kept, strict=True) if keep)
    return INTRODUCTION + kept + row["question"].text


def write(path: pathlib.Path, rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=pathlib.Path, required=True, help="folder with the tokenizer.json that counts")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder, made where it is missing")
    parser.add_argument(
        "--sources", type=pathlib.Path, nargs="+", help="folders of Python files (default: site-packages)"
    )
    parser.add_argument("--min-tokens", type=int, default=14_000, help="of a prompt, before the chat template")
    parser.add_argument("--max-tokens", type=int, default=26_000)
    parser.add_argument("--count", type=int, default=64, help="prompts of each split")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--control-tokens", type=int)
    parser.add_argument("--control", choices=["target", "ends"], default="target")
    flags = parser.parse_args()
    kinds = flags.kinds.split(",")
    if not set(kinds) <= set(KINDS):
        parser.error(f"--kinds: {flags.kinds} is no list of {', '.join(KINDS)}")
    if not 0 < flags.min_tokens < flags.max_tokens:
        parser.error("--min-tokens must be above 0 and below --max-tokens")
    tokenizer = tokenizers.Tokenizer.from_file(str(flags.model / "tokenizer.json"))
    files = find_files(flags.sources or [pathlib.Path(sysconfig.get_paths()["purelib"])])
    flags.out.mkdir(parents=True, exist_ok=True)
    for split in ("calibration", "held-out"):
        draw = random.Random(f"{flags.seed} {split}")
        library = Library(files, split, tokenizer, draw)
        rows, short = [], []
        for number in range(flags.count):
            row = draw_prompt(library, kinds[number % len(kinds)], flags, draw, tokenizer)
            question = row["question"]
            common = {"id": f"{split}-{number}", "source": question.kind, "answer": question.answer}
            rows.append(common | {"prompt": row["prompt"]})
            if flags.control_tokens:
                short.append(common | {"prompt": shorten(row, flags, tokenizer)})
        write(flags.out / f"{split}.jsonl", rows)
        if flags.control_tokens:
            write(flags.out / f"{split}-short.jsonl", short)
        print(f"{flags.out / split}.jsonl: {len(rows)} prompts")
    return 0


if __name__ == "__main__":
    sys.exit(main())

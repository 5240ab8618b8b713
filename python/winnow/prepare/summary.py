"""What is printed at the end: counts by reason, lengths, and the first example with its scored span."""

import collections
import itertools
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NotRequired, TypedDict

from winnow.prepare.selection import Candidate, Limits

if TYPE_CHECKING:
    import tokenizers

HEAD_TOKENS, TAIL_TOKENS, ANSWER_TOKENS, SEAM_TOKENS = 60, 60, 120, 6
BAR = 40
COLUMNS_SHOWN = 12


class Control(TypedDict):
    """The control set in the summary."""

    kept: int
    left_out: dict[str, int]
    prompt_tokens: list[int]  # fewest, most


class Report(TypedDict):
    """The summary as --json prints it."""

    rows: int
    examples: int
    kept: int
    asked: int | None
    left_out: dict[str, int]
    first_errors: list[tuple[str, str, str]]  # place, reason, detail
    lengths: list[tuple[int, int, int]]  # lowest, highest, count
    answer_tokens: list[int]  # fewest, median, most
    end_of_turn: dict[str, int]
    think: dict[str, int]
    tool_calls: dict[str, int]
    unused_columns: dict[str, int]  # rows whose text in that column is in no example
    sources: dict[str, int]
    tokenised: int
    seconds: float
    processes: int
    control: NotRequired[Control]


def lengths(candidates: Iterable[Candidate], limits: Limits) -> list[tuple[int, int, int]]:
    """[(lowest, highest, count)] of prompt lengths in eight ranges, or in the bins that were asked for."""
    values = [candidate.prompt_tokens for candidate in candidates]
    low, high = min(values), max(values)
    n_ranges = limits.bins if limits.bins > 1 else 8
    if limits.bins > 1:
        low, high = limits.min_prompt_tokens, limits.max_prompt_tokens or high
    edges = [low + (high + 1 - low) * i // n_ranges for i in range(n_ranges + 1)]
    return [(a, b - 1, sum(a <= value < b for value in values)) for a, b in itertools.pairwise(edges) if b > a]


def as_text(report: Report) -> str:
    lines = [f"Read {report['rows']} rows, {report['examples']} examples"]
    for reason, count in sorted(report["left_out"].items(), key=lambda item: (-item[1], item[0])):
        lines.append(f"  {count:>8}  {reason}")
    lines.append(f"  {report['kept']:>8}  kept" + (f" of {report['asked']} asked for" if report["asked"] else ""))
    lines += [
        f"  first: {place}: {reason}{': ' + detail if detail else ''}"
        for place, reason, detail in report["first_errors"]
    ]
    lines += ["", "Prompt lengths, tokens"]
    most = max(count for _, _, count in report["lengths"]) or 1
    lines += [
        f"  {low:>7} - {high:<7} {count:>5}  {'█' * (count * BAR // most)}" for low, high, count in report["lengths"]
    ]
    low, middle, high = report["answer_tokens"]
    lines += ["", f"Answers: {low} to {high} scored tokens, median {middle}; " + _end_of_turn(report)]
    for kind, count in report["think"].items():
        lines.append(f"Think: {kind} ({count} examples)")
    for kind, count in report["tool_calls"].items():
        lines.append(f"Tools: {kind} ({count} examples)")
    if report["unused_columns"]:
        lines.append(f"Columns that nothing uses: {_unused(report['unused_columns'])}; --field says otherwise")
    if len(report["sources"]) > 1:
        lines.append("Sources: " + ", ".join(f"{name} {count}" for name, count in report["sources"].items()))
    tokens, seconds = report["tokenised"], report["seconds"]
    cost = f", {seconds / tokens * 1e6:.2f} s per million on {report['processes']} processes" if tokens else ""
    lines.append(f"Tokenised {tokens / 1e6:.2f} M tokens in {seconds:.1f} s{cost}")
    return "\n".join(lines)


def _unused(columns: dict[str, int]) -> str:
    shown = [f"{visible(name)} ({rows} rows)" for name, rows in list(columns.items())[:COLUMNS_SHOWN]]
    more = len(columns) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _end_of_turn(report: Report) -> str:
    ends = ", ".join(
        f"{json.dumps(token) if token else 'none'} ({count})" for token, count in report["end_of_turn"].items()
    )
    return f"end of turn scored: {ends}"


def visible(text: str) -> str:
    """Control characters as pictures; a line break shows and breaks the line."""
    shown = []
    for character in text:
        if character == "\n":
            shown.append("↵\n")
        elif ord(character) < 0x20:
            shown.append(chr(0x2400 + ord(character)))
        elif character == "\x7f" or (not character.isprintable() and character != " "):
            shown.append(f"\\u{ord(character):04x}")
        else:
            shown.append(character)
    return "".join(shown)


def first_example(name: str, ids: Sequence[int], start: int, backend: "tokenizers.Tokenizer") -> str:
    """The beginning and the end of the prompt and the scored span, from the tokens of the file itself."""

    def spell(part: Sequence[int]) -> str:
        return visible(backend.decode(part, skip_special_tokens=False))

    def pieces(part: Sequence[int]) -> str:
        return " ".join(repr(backend.decode([token], skip_special_tokens=False)) for token in part)

    prompt, answer = ids[:start], ids[start:]
    head, tail = prompt[:HEAD_TOKENS], prompt[max(HEAD_TOKENS, len(prompt) - TAIL_TOKENS) :]
    between = len(prompt) - len(head) - len(tail)
    scored, more = answer[:ANSWER_TOKENS], len(answer) - ANSWER_TOKENS
    last = answer[-min(more, 20) :] if more > 0 else []
    hidden = max(0, more - len(last))
    text = spell(head) + (f"\n[... {between} tokens ...]\n" if between else "") + spell(tail) + "⟦" + spell(scored)
    text += (f"\n[... {hidden} tokens ...]\n" if hidden else "") + (spell(last) if last else "") + "⟧"
    return (
        f"First example, {name}: {len(prompt)} tokens of prompt, then ⟦{len(answer)} scored tokens⟧\n{text}\n"
        f"Tokens at the seam: {pieces(prompt[-SEAM_TOKENS:])} ⟦ {pieces(answer[:SEAM_TOKENS])}"
    )


def counts(values: Iterable[str]) -> dict[str, int]:
    """{value: how often}, most frequent first."""
    return dict(sorted(collections.Counter(values).items(), key=lambda item: (-item[1], item[0])))

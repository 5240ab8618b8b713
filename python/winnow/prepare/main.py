"""The program: options, the stream of rows through the workers into the reservoirs, the files, the summary."""

import collections
import dataclasses
import functools
import json
import os
import pathlib
import statistics
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy

from winnow import __version__
from winnow.common.errors import ExitCode, Failure
from winnow.common.program import Program
from winnow.common.text import clean, json_for_terminal, one_line
from winnow.prepare import options as command_line
from winnow.prepare import outputs, responses, summary, writer
from winnow.prepare.benchmarks.layouts import BenchmarkLayouts
from winnow.prepare.benchmarks.room import NOISE, Room, read_haystack, sentences_of
from winnow.prepare.generators.layouts import GeneratedLayouts, Plan
from winnow.prepare.options import Options
from winnow.prepare.pool import Pool
from winnow.prepare.progress import Progress
from winnow.prepare.rendering.render import RawRenderer, Renderer, TemplateRenderer
from winnow.prepare.rendering.template import TOO_SLOW, find_template
from winnow.prepare.rows.conversations import Conversation, Layouts
from winnow.prepare.rows.sources import Reader, Row, find_files
from winnow.prepare.selection import Bounds, Candidate, Limits, Reservoir
from winnow.prepare.tokens.tokenise import (
    SEAM,
    Tokeniser,
    load_tokenizer,
    special_prefix,
    tokenizer_sha256,
    vocabulary_size,
)
from winnow.prepare.work import Layout, Outcome, Worker

if TYPE_CHECKING:
    import tokenizers

FIRST_ERRORS = 5
MOST_SLOW = 3  # rows that the template takes too long for; the next ones would be no faster
Files = dict[pathlib.Path, tuple[writer.Attributes, list[writer.Example]]]


PROGRAM = Program(
    name="winnow-prepare",
    prefix="winnow: prepare: ",
    interrupted=(ExitCode.INTERRUPTED, "interrupted, nothing was written; the same command begins anew"),
    out_of_memory="try fewer --processes",
)


def _make_worker(options: Options, limits: list[Limits]) -> tuple[Worker, dict[str, str]]:
    """(Worker, attributes of the file that name tokenizer and template)."""
    n_vocabulary = vocabulary_size(options.model)
    tokenizer = load_tokenizer(options.model)
    attributes = {"tokenizer_sha256": tokenizer_sha256(tokenizer, options.model)}
    tokeniser = Tokeniser(
        tokenizer, not options.no_end_of_turn, n_vocabulary, special_prefix(tokenizer) if options.raw else ()
    )
    renderer: Renderer
    words: Collection[str] = ()
    if options.raw:
        renderer = RawRenderer(options.separator, str(tokenizer.eos_token or ""))
    else:
        template = find_template(tokenizer, options.template, options.model)
        attributes["template_sha256"] = writer.sha256(template)
        renderer = TemplateRenderer(tokenizer, template, options.think, options.template_arg, options.date)
        words = renderer.words
    worker = Worker(
        layouts=_layouts(options, renderer, tokeniser, words),
        renderer=renderer,
        tokeniser=tokeniser,
        salt=f"draw {options.seed}",
        split=options.split,
        held_out_share=options.held_out_share,
        limits=limits,
        min_answer_tokens=options.min_answer_tokens,
        max_answer_tokens=options.max_answer_tokens,
        keeps_conversations=_cuts(options),
    )
    return worker, attributes


def _layouts(options: Options, renderer: Renderer, tokeniser: Tokeniser, words: Collection[str]) -> Layout:
    system = {"keep": None, "none": ""}.get(options.system, options.system)
    if not (options.format or options.generate_task):
        return Layouts(options.field, options.every_turn, system, words)

    def tokens(conversation: Conversation) -> int:
        return tokeniser.encode(renderer.render(conversation)).answer_start

    sentences = read_haystack(options.haystack)
    lengths = options.task_tokens or [options.max_prompt_tokens]
    room = Room(lengths, sentences or sentences_of(NOISE), bool(sentences), options.seed)
    raw = options.raw and not options.separator
    if options.format:
        return BenchmarkLayouts(options.format, options.task_prompts or {}, room, tokens, raw, system)
    return GeneratedLayouts(room, tokens, raw, system)


def _cuts(options: Options) -> bool:
    return options.control_short is not None and options.control_from == "cut"


def _limits(options: Options) -> list[Limits]:
    found = [
        Limits(options.count, options.min_prompt_tokens, options.max_prompt_tokens, options.length_bins, options.quota)
    ]
    if options.control_short is not None and options.control_from == "data":
        found.append(Limits(options.count, options.control_tokens // 2, options.control_tokens))
    return found


class Draw:
    """The pass over the input: outcomes into reservoirs, counts by reason."""

    def __init__(self, limits: Sequence[Limits], spool: writer.Spool, strict: bool) -> None:
        self._limits, self._spool, self._strict = limits, spool, strict
        self.reservoirs = [Reservoir(limit) for limit in limits]
        self.left_out: collections.Counter[str] = collections.Counter()
        self.first_errors: list[tuple[str, str, str]] = []
        self.unused: collections.Counter[str] = collections.Counter()
        self.n_examples = self.n_tokens = 0
        self._for_now = 0

    def bounds(self) -> list[Bounds]:
        return [reservoir.bounds() for reservoir in self.reservoirs]

    def take(self, outcome: Outcome) -> None:
        self.n_examples += 1
        self.n_tokens += outcome.n_tokenised
        self.unused.update(outcome.unused)
        if not outcome.example:
            self._leave_out(outcome)
            return
        number = next(i for i, limit in enumerate(self._limits) if limit.holds(outcome.example.prompt_tokens))
        position = (*self._spool.append(outcome.tokens), *self._spool.append(outcome.conversation))
        verdict = self.reservoirs[number].add(Candidate(*outcome.example, position))
        if verdict == "kept":
            self._for_now += 1
        else:
            self.left_out["duplicate prompt" if verdict == "duplicate" else verdict] += 1

    def _leave_out(self, outcome: Outcome) -> None:
        if outcome.is_error:
            if self._strict:
                raise Failure(
                    ExitCode.BAD_DATA,
                    f"{outcome.place}: {outcome.reason}"
                    f"{': ' + outcome.detail if outcome.detail else ''} (without --strict such "
                    "rows are left out and counted)",
                )
            if len(self.first_errors) < FIRST_ERRORS:
                self.first_errors.append((outcome.place, outcome.reason, outcome.detail[:200]))
        self.left_out[outcome.reason] += 1
        if self.left_out[TOO_SLOW] == MOST_SLOW:
            raise Failure(
                ExitCode.BAD_DATA, f"{outcome.place}: {TOO_SLOW}, as with {MOST_SLOW - 1} rows before: {outcome.detail}"
            )

    def choose(self) -> list[list[Candidate]]:
        """Kept candidates of each reservoir; the others are counted."""
        chosen = [reservoir.choose() for reservoir in self.reservoirs]
        others = self._for_now - sum(map(len, chosen))
        if others:
            self.left_out["not drawn"] += others
        return chosen


def _examples(candidates: Sequence[Candidate], spool: writer.Spool) -> list[writer.Example]:
    """Tokens are read when they are written."""
    return [
        writer.Example(
            name,
            candidate.source,
            candidate.spool[1] // 4,
            functools.partial(spool.read, *candidate.spool[:2]),
            candidate.prompt_tokens,
            candidate.scoring,
        )
        for name, candidate in zip(writer.unique_ids(candidates), candidates, strict=True)
    ]


def _cut_examples(
    pool: Pool, candidates: Sequence[Candidate], spool: writer.Spool, most_tokens: int
) -> tuple[list[writer.Example], dict[str, int]]:
    """([examples], {reason: count}): the control that is cut from the same examples, under their ids."""
    results = pool.cut((spool.read(*candidate.spool[2:]) for candidate in candidates), most_tokens)
    examples: list[writer.Example] = []
    failed: collections.Counter[str] = collections.Counter()
    names = writer.unique_ids(candidates)
    for name, candidate, (tokens, start, reason) in zip(names, candidates, results, strict=True):
        if reason:
            failed[reason] += 1
        else:
            load = functools.partial(bytes, tokens)
            # What the data call the length is that of the whole prompt.
            scoring = candidate.scoring and dataclasses.replace(candidate.scoring, length_bin="")
            examples.append(writer.Example(name, candidate.source, len(tokens) // 4, load, start, scoring))
    return examples, failed


def _report(draw: Draw, kept: Sequence[Candidate], options: Options, progress: Progress) -> summary.Report:
    answers = [candidate.answer_tokens for candidate in kept]
    return {
        "rows": progress.n_rows,
        "examples": draw.n_examples,
        "kept": len(kept),
        "asked": options.count,
        "left_out": dict(draw.left_out),
        "first_errors": draw.first_errors,
        "lengths": summary.lengths(kept, _limits(options)[0]),
        "answer_tokens": [min(answers), int(statistics.median(answers)), max(answers)],
        "end_of_turn": summary.counts(candidate.end_of_turn for candidate in kept),
        "think": summary.counts(candidate.think for candidate in kept),
        "tool_calls": summary.counts(candidate.tool_calls for candidate in kept if candidate.tool_calls),
        "unused_columns": dict(draw.unused.most_common()),
        "sources": summary.counts(candidate.source for candidate in kept),
        "tokenised": draw.n_tokens,
        "seconds": progress.seconds,
        "processes": options.processes,
    }


def _attributes(options: Options, common: dict[str, str], report: summary.Report) -> dict[str, str | int]:
    filters: dict[str, object] = command_line.settings(options) | {
        "think_effect": report["think"],
        "tool_calls_effect": report["tool_calls"],
        "end_of_turn_token": report["end_of_turn"],
    }
    return {
        **common,
        "filters": json.dumps(filters, sort_keys=True, ensure_ascii=False),
        "seed": options.seed,
        "created_by": f"winnow-prepare {__version__}",
    }


def _nothing_kept(draw: Draw, options: Options) -> Failure:
    names = options.input or options.generate_task or []
    counted = ", ".join(f"{count} {reason}" for reason, count in draw.left_out.most_common(4))
    first = "; first: " + ": ".join(filter(None, draw.first_errors[0])) if draw.first_errors else ""
    hint = "; --separator says what stands between prompt and answer" if SEAM in draw.left_out and options.raw else ""
    return Failure(
        ExitCode.BAD_DATA,
        f"{', '.join(names[:3])}: no example is left, nothing was written: {counted or 'no rows'}{first}{hint}",
    )


def prepare(options: Options) -> None:
    paths = [options.out] + ([options.control_short] if options.control_short else [])
    inputs = find_files(options.input or [])
    for path in paths:
        outputs.check_output(
            path, outputs.CALIBRATION, options.force, [*inputs, *options.other_inputs()], options.model
        )
    spool = writer.Spool(options.out.parent)
    reader = (
        Plan(options.generate_task, options.task_tokens or [options.max_prompt_tokens], options.count or 1)
        if options.generate_task
        else Reader(inputs)
    )
    limits = _limits(options)
    worker, common = _make_worker(options, limits)
    draw = Draw(limits, spool, options.strict)
    with Pool(worker, options.processes) as pool:
        progress = Progress(reader)
        for outcomes in pool.map(_counted(reader.rows(), progress), draw.bounds):
            for outcome in outcomes:
                draw.take(outcome)
            progress.n_tokens = draw.n_tokens
            progress.show(len(draw.reservoirs[0]))
        progress.clear()
        chosen = draw.choose()
        if not chosen[0]:
            raise _nothing_kept(draw, options)
        report = _report(draw, chosen[0], options, progress)
        attributes = _attributes(options, common, report)
        files: Files = {options.out: (attributes, _examples(chosen[0], spool))}
        if options.control_short:
            examples, failed = (
                _cut_examples(pool, chosen[0], spool, options.control_tokens)
                if _cuts(options)
                else (_examples(chosen[1], spool), {})
            )
            if not examples:
                raise Failure(
                    ExitCode.BAD_DATA,
                    f"no example for the control, nothing was written: no prompt of "
                    f"{options.control_tokens} tokens or fewer"
                    + "".join(f"; {count} {reason}" for reason, count in failed.items()),
                )
            files[options.control_short] = (attributes, examples)
            report["control"] = {
                "kept": len(examples),
                "left_out": dict(failed),
                "prompt_tokens": [min(e.answer_start for e in examples), max(e.answer_start for e in examples)],
            }
    writer.write(files)
    outputs.say(_as_text(report, files, worker.tokeniser.backend, options), files)


def _counted(rows: Iterable[Row], progress: Progress) -> Iterator[Row]:
    for row in rows:
        progress.n_rows += 1
        yield row


def _as_text(report: summary.Report, files: Files, backend: "tokenizers.Tokenizer", options: Options) -> str:
    if options.json:
        return json_for_terminal(json.dumps(report, ensure_ascii=False))
    text = summary.as_text(report)
    if "control" in report:
        low, high = report["control"]["prompt_tokens"]
        text += f"\nControl: {report['control']['kept']} examples, prompts of {low} to {high} tokens" + "".join(
            f"; {count} left out: {reason}" for reason, count in report["control"]["left_out"].items()
        )
    first = files[options.out][1][0]
    ids = numpy.frombuffer(first.load(), numpy.int32).tolist()
    text += "\n\n" + summary.first_example(first.name, ids, first.answer_start, backend)
    return clean(text + "\n\nWritten: " + ", ".join(map(one_line, files)))


def _run(arguments: list[str]) -> None:
    options = command_line.parse(arguments)
    if options.decode_responses:
        responses.decode(options.decode_responses, options)
    else:
        prepare(options)


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    code = PROGRAM.run_for_winnow(lambda: _run(sys.argv[1:] if arguments is None else arguments))
    if code != ExitCode.DONE:
        os._exit(code)  # at once: files are closed or have no name, and workers may have been killed (pool.py)
    return code

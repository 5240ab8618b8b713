"""What the worker processes do: rows in, token ids or reasons out."""

import ctypes
import dataclasses
import mmap
import multiprocessing
import os
import pickle
import signal
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy

from winnow.common.scoring import Scoring
from winnow.prepare.rendering.render import Rendered, Renderer
from winnow.prepare.rows.conversations import Conversation
from winnow.prepare.rows.sources import Row
from winnow.prepare.selection import Bounds, Limits, is_outranked
from winnow.prepare.tokens.tokenise import Tokeniser, Tokens
from winnow.prepare.unusable import Unusable


class Layout(Protocol):
    def parse(self, row: Row) -> list[Conversation]:
        """Raises Unusable."""


@dataclasses.dataclass
class Worker:
    """Everything that turns a row into an example. Made once; the processes inherit it."""

    layouts: Layout
    renderer: Renderer
    tokeniser: Tokeniser
    salt: str
    split: str  # "all", "calibration" or "held-out"
    held_out_share: float
    limits: list[Limits]  # of the calibration set, then perhaps of the control set
    min_answer_tokens: int
    max_answer_tokens: int | None
    keeps_conversations: bool


class Example(NamedTuple):
    """What is told of an example beside its tokens."""

    key: int
    name: str
    source: str
    prompt_tokens: int
    answer_tokens: int
    think: str
    end_of_turn: str
    tool_calls: str
    scoring: Scoring | None


@dataclasses.dataclass(frozen=True)
class Outcome:
    place: str
    reason: str = ""  # why it is not an example
    detail: str = ""
    is_error: bool = False
    example: Example | None = None
    tokens: bytes = b""  # int32
    conversation: bytes = b""
    n_tokenised: int = 0
    unused: tuple[str, ...] = ()  # columns of the row, as Conversation has them


CUT_PRECISION = 0.98  # a cut prompt has between this share and all of the tokens that it may have

_worker: Worker
_board: "Board | None" = None


class Board:
    """A line of shared memory for each worker process that says at which row it is: for the parent, where one dies."""

    LINE_BYTES = 1024

    def __init__(self, processes: int) -> None:
        self._lines = mmap.mmap(-1, self.LINE_BYTES * processes)
        self._taken = multiprocessing.get_context("fork").Value("i", 0)
        self._begin = 0

    def take_line(self) -> None:
        """In the worker process."""
        with self._taken.get_lock():
            self._begin = self.LINE_BYTES * self._taken.value
            self._taken.value += 1

    def write(self, place: str) -> None:
        text = f"{os.getpid()} {place}".encode("utf-8", "surrogateescape")[: self.LINE_BYTES]
        self._lines[self._begin : self._begin + self.LINE_BYTES] = text.ljust(self.LINE_BYTES, b"\0")

    def place_of(self, pid: int) -> str:
        """ "" where that process has not begun."""
        for begin in range(0, len(self._lines), self.LINE_BYTES):
            line = self._lines[begin : begin + self.LINE_BYTES].rstrip(b"\0").decode("utf-8", "surrogateescape")
            number, _, place = line.partition(" ")
            if number == str(pid):
                return place
        return ""


def _at(place: str) -> None:
    if _board is not None:
        _board.write(place)


def start(worker: Worker, board: Board) -> None:
    """Initializer of a process. An interrupt is the parent's to handle; a parent that dies takes its workers along."""
    global _worker, _board
    _worker, _board = worker, board
    board.take_line()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def ready() -> bool:
    return "_worker" in globals()


def process(rows: Sequence[Row], bounds: Sequence[Bounds]) -> list[Outcome]:
    """The rows' outcomes, in order. bounds: of each reservoir, what cannot be kept anyway."""
    outcomes = []
    for row in rows:
        _at(row.place)
        try:
            for number, conversation in enumerate(_worker.layouts.parse(row)):
                outcome = _examine(row, conversation, bounds)
                # Rows are counted, not the examples of one.
                outcomes.append(dataclasses.replace(outcome, unused=conversation.unused) if number == 0 else outcome)
        except Unusable as unusable:
            outcomes.append(_left_out(row, unusable))
    return outcomes


def _left_out(row: Row, unusable: Unusable, n_tokenised: int = 0) -> Outcome:
    return Outcome(row.place, unusable.reason, unusable.detail, unusable.is_error, n_tokenised=n_tokenised)


def _examine(row: Row, conversation: Conversation, bounds: Sequence[Bounds]) -> Outcome:
    n_tokenised = 0
    try:
        _check_split(conversation)
        key = conversation.key(_worker.salt)
        if all(
            is_outranked(key, conversation.source, limits.quotas, bound)
            for limits, bound in zip(_worker.limits, bounds, strict=True)
        ):
            raise Unusable("not drawn", is_error=False)
        rendered = _worker.renderer.render(conversation)
        shortest = min(limits.min_prompt_tokens for limits in _worker.limits)
        if _worker.tokeniser.most_tokens(rendered.text) < shortest:
            raise Unusable(_too_short(), is_error=False)
        _check_bounds(rendered)
        tokens = _worker.tokeniser.encode(rendered)
        n_tokenised = len(tokens.ids)
        _check_lengths(tokens)
    except Unusable as unusable:
        return _left_out(row, unusable, n_tokenised)
    example = Example(
        key,
        conversation.example_id,
        conversation.source,
        tokens.answer_start,
        n_tokenised - tokens.answer_start,
        rendered.think,
        tokens.end_of_turn,
        rendered.tool_calls,
        conversation.scoring,
    )
    kept = pickle.dumps(conversation) if _worker.keeps_conversations else b""
    return Outcome(
        row.place,
        example=example,
        tokens=numpy.array(tokens.ids, numpy.int32).tobytes(),
        conversation=kept,
        n_tokenised=n_tokenised,
    )


def _check_split(conversation: Conversation) -> None:
    if _worker.split == "all":
        return
    is_held_out = conversation.split_position() < _worker.held_out_share
    if is_held_out != (_worker.split == "held-out"):
        raise Unusable("in the other split", is_error=False)


def _too_short() -> str:
    return f"prompt under {_worker.limits[0].min_prompt_tokens} tokens"


def _check_lengths(tokens: Tokens) -> None:
    if tokens.answer_tokens < _worker.min_answer_tokens:
        raise Unusable(f"answer under {_worker.min_answer_tokens} tokens", is_error=False)
    if _worker.max_answer_tokens is not None and tokens.answer_tokens > _worker.max_answer_tokens:
        raise Unusable(f"answer over {_worker.max_answer_tokens} tokens", is_error=False)
    if any(limits.holds(tokens.answer_start) for limits in _worker.limits):
        return
    if tokens.answer_start < _worker.limits[0].min_prompt_tokens:
        raise Unusable(_too_short(), is_error=False)
    raise Unusable(_too_long(), is_error=False)


def _too_long() -> str:
    return f"prompt over {_worker.limits[0].max_prompt_tokens} tokens"


def _check_bounds(rendered: Rendered) -> None:
    """Leaves out what is too long for certain: tokenising it takes some two hundred times the memory of the text."""
    exceeds, most = _worker.tokeniser.bound.exceeds, [limits.max_prompt_tokens for limits in _worker.limits]
    longest = max((limit for limit in most if limit is not None), default=None)
    if longest is not None and None not in most and exceeds(rendered.text[: rendered.answer_begin], longest):
        raise Unusable(_too_long(), is_error=False)
    answer, most_of_it = rendered.text[rendered.answer_begin : rendered.answer_end], _worker.max_answer_tokens
    if most_of_it is not None and exceeds(answer, most_of_it):
        raise Unusable(f"answer over {most_of_it} tokens", is_error=False)


def cut(data: bytes, most_tokens: int) -> tuple[bytes, int, str]:
    """A kept conversation (bytes) with the middle of its long messages removed, so that the prompt has at most
    `most_tokens`: head, tail and answer stay. Returns (tokens as bytes, answer_start, "") or (b"", 0, reason)."""
    conversation: Conversation = pickle.loads(data)
    _at(f"example {conversation.example_id}")
    low, high = 0, max(len(message["content"]) for message in conversation.prompt) + 1  # fits perhaps, is too long
    length, reason = min(high - 1, 4 * most_tokens), f"cannot be cut to {most_tokens} tokens"
    best: Tokens | None = None
    while low < high:
        try:
            tokens = _worker.tokeniser.encode(_worker.renderer.render(shortened(conversation, length)))
        except Unusable as unusable:
            return b"", 0, unusable.reason
        if tokens.answer_start <= most_tokens:
            best, low = tokens, length + 1
        else:
            high = length
        if best is not None and best.answer_start > CUT_PRECISION * most_tokens:
            break
        # The length that this many characters a token would need; by halves where that is no new knowledge.
        guess = length * most_tokens // tokens.answer_start
        length = guess if low < guess < high - 1 else (low + high) // 2
    if best is None:
        return b"", 0, reason
    return numpy.array(best.ids, numpy.int32).tobytes(), best.answer_start, ""


def shortened(conversation: Conversation, length: int) -> Conversation:
    """Messages of the prompt longer than `length` characters lose their middle, at white space where there is some."""
    messages = []
    for message in conversation.prompt:
        text = message["content"]
        if len(text) > length:
            head, tail = text[: (length + 1) // 2], text[len(text) - length // 2 :]
            head = head[: _last_space(head)]
            tail = tail[len(tail) - _last_space(tail[::-1]) :]
            message = message.copy()
            message["content"] = head + "\n" + tail
        messages.append(message)
    return dataclasses.replace(conversation, messages=[*messages, conversation.messages[-1]])


def _last_space(text: str) -> int:
    """Where to end the text so that no word is broken; its end where the last 40 characters have no white space."""
    for place in range(len(text) - 1, max(-1, len(text) - 41), -1):
        if text[place].isspace():
            return place
    return len(text)

"""The chat template: where it comes from, what it names, and its rendering under a fixed clock and a limit of time."""

import contextlib
import datetime
import functools
import pathlib
import random
import signal
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from winnow.common.errors import ExitCode, Failure
from winnow.prepare.rows.messages import Message
from winnow.prepare.unusable import Unusable

if TYPE_CHECKING:
    import jinja2
    from transformers import PreTrainedTokenizerFast

TOO_SLOW = "the template takes too long"
# Of processor time, so that a busy machine changes nothing. Usual templates take a thousandth of it.
RENDER_SECONDS = 5
RENDER_SECONDS_PER_BYTE = 2e-6


class _TimeIsUp(BaseException):
    """Not an Exception, so that nothing on the way takes it for a failure of its own."""


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Unusable after so many seconds of processor time. Of the main thread alone, as signals are."""

    is_running = True

    def end(number: int, frame: FrameType | None) -> None:
        if is_running:
            raise _TimeIsUp

    before = signal.signal(signal.SIGPROF, end)
    # Again every second: Python drops what a destructor raises.
    signal.setitimer(signal.ITIMER_PROF, seconds, 1)
    try:
        yield
    except _TimeIsUp:
        raise Unusable(TOO_SLOW, f"over {seconds:.0f} s of processor time; does it loop without end?") from None
    finally:
        is_running = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


class Template:
    """arguments: further variables of the template; date: the day that its clock says, at midnight."""

    def __init__(
        self, tokenizer: "PreTrainedTokenizerFast", source: str, arguments: Mapping[str, object], date: datetime.date
    ) -> None:
        self._tokenizer, self._source, self._arguments = tokenizer, source, arguments
        self._moment = datetime.datetime.combine(date, datetime.time())

    def render(self, messages: Sequence[Message], tools: Sequence[Any] | None = None, generate: bool = False) -> str:
        """What Transformers' apply_chat_template gives; generate: with the header of the answer behind. Raises
        Unusable."""
        # Its types leave no room for the template's own variables.
        apply: Any = self._tokenizer.apply_chat_template
        n_bytes = sum(len(message["content"]) for message in messages)
        try:
            with _limited(RENDER_SECONDS + RENDER_SECONDS_PER_BYTE * n_bytes):
                # The clock itself is replaced, however the template reaches it: the real one would make other tokens
                # every day. Each time anew, as Transformers keeps one compiled template for all that are alike.
                self._environment().globals["strftime_now"] = self._moment.strftime
                random.seed(0)  # Jinja's filter `random` draws from it
                text = apply(
                    list(messages),
                    tools=list(tools) if tools else None,
                    chat_template=self._source,
                    tokenize=False,
                    add_generation_prompt=generate,
                    **self._arguments,
                )
        except Unusable:
            raise
        except Exception as error:  # a template can do anything; jinja2 passes on whatever its filters throw
            raise Unusable("the template refuses the conversation", " ".join(str(error).split())) from error
        return str(text)

    @functools.cached_property
    def words(self) -> frozenset[str]:
        """Its string literals: the names of roles that it asks for are among them."""
        from jinja2 import nodes

        literals = self._environment().parse(self._source).find_all(nodes.Const)
        return frozenset(one.value for one in literals if isinstance(one.value, str))

    def _environment(self) -> "jinja2.Environment":
        from transformers.utils import chat_template_utils

        return chat_template_utils._compile_jinja_template(self._source).environment


def for_tools(tokenizer: "PreTrainedTokenizerFast", template: str) -> str:
    """The template for conversations with tools: a tokenizer may carry one of its own for them."""
    named = tokenizer.chat_template
    is_own = isinstance(named, dict) and named.get("default") == template
    return named.get("tool_use", template) if is_own else template


def find_template(tokenizer: "PreTrainedTokenizerFast", path: pathlib.Path | None, model: pathlib.Path) -> str:
    """Text of the chat template: of the file `path`, else the tokenizer's own. Failure where there is none."""
    import jinja2

    where = str(path or f"{model}: chat template")
    if path is not None:
        try:
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise Failure(ExitCode.NO_INPUT, f"{path}: the template cannot be read: {reason}") from error
    else:
        source = _own_template(tokenizer, model)
    try:
        source.encode()
    except UnicodeEncodeError as error:
        raise Failure(ExitCode.BAD_DATA, f"{where}: not Unicode: {error.reason}") from error
    template = Template(tokenizer, source, {}, datetime.date(2024, 7, 26))
    try:
        template.render([{"role": "user", "content": "Hello"}])
    except Unusable as unusable:
        if isinstance(unusable.__cause__, jinja2.TemplateSyntaxError):
            wrong = unusable.__cause__
            raise Failure(ExitCode.BAD_DATA, f"{where}, line {wrong.lineno}: {wrong.message}") from wrong
        if unusable.reason == TOO_SLOW:
            raise Failure(ExitCode.BAD_DATA, f"{where}: {unusable.reason}: {unusable.detail}") from None
        # It may want other messages than this one: each example will tell.
    return source


def _own_template(tokenizer: "PreTrainedTokenizerFast", model: pathlib.Path) -> str:
    template: object = tokenizer.chat_template
    if isinstance(template, dict):
        names = ", ".join(sorted(template))
        template = template.get("default")
        if not template:
            raise Failure(
                ExitCode.USAGE,
                f"{model}: its chat templates are named {names} and none is the default; "
                "write the one that is meant to a file and pass --template FILE",
            )
    if not template:
        raise Failure(
            ExitCode.USAGE,
            f"{model}: the tokenizer has no chat template, as of a base model; pass "
            "--template FILE (a Jinja chat template), or --raw for prompt and answer as "
            "they are",
        )
    if not isinstance(template, str):
        raise Failure(ExitCode.BAD_DATA, f"{model}: the chat template of tokenizer_config.json is not text")
    return template

"""Conversations to text, by the model's own chat template, and where in that text the answer lies."""

import dataclasses
import datetime
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from winnow_prepare.conversations import Conversation, Message, Tool, check_unicode
from winnow_prepare.errors import ExitCode, Failure, Unusable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Stands where the answer will be; private-use characters that no template trims.
MARKER = "\ue0a7winnow-answer\ue0a7"
THINK_TAGS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<thought>", "</thought>"),
)


@dataclasses.dataclass(frozen=True)
class Rendered:
    text: str  # the whole conversation
    answer_begin: int  # in characters
    answer_end: int
    think: str  # what stands between the assistant's header and the answer


class Renderer(Protocol):
    def render(self, conversation: Conversation) -> Rendered:
        """Raises Unusable."""


class RawRenderer:
    """No template: prompt, separator, answer, end-of-text token. For base models."""

    def __init__(self, separator: str, end: str) -> None:
        self._separator, self._end = separator, end

    def render(self, conversation: Conversation) -> Rendered:
        if len(conversation.messages) != 2:
            raise Unusable("--raw takes a prompt and an answer, no conversation")
        head = conversation.messages[0]["content"] + self._separator
        end = len(head) + len(conversation.answer)
        return Rendered(head + conversation.answer + self._end, len(head), end, "no template")


class TemplateRenderer:
    """Chat template of a Transformers tokenizer.

    think: "empty", "none" or "given"; arguments: further variables of the template; date: what the template's clock
    says.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerFast",
        template: str,
        think: str,
        arguments: Mapping[str, object],
        date: datetime.date,
    ) -> None:
        self._tool_template = with_date(_for_tools(tokenizer, template), date)
        template = with_date(template, date)
        self._tokenizer, self._template, self._policy = tokenizer, template, think
        self._arguments = arguments
        self._tags = next((tags for tags in THINK_TAGS if tags[0] in template or tags[1] in template), None)
        self._opens_think = self._tags is not None and self._generation_prompt().endswith(self._tags[0])

    def _apply(self, messages: Sequence[Message], tools: list[Tool] | None = None, generate: bool = False) -> str:
        apply: Any = self._tokenizer.apply_chat_template  # its types leave no room for the template's own variables
        try:
            return str(
                apply(
                    list(messages),
                    tools=tools,
                    chat_template=self._tool_template if tools else self._template,
                    tokenize=False,
                    add_generation_prompt=generate,
                    **self._arguments,
                )
            )
        except Exception as error:  # a template can do anything; jinja2 passes on whatever its filters throw
            raise Unusable("the template refuses the conversation", " ".join(str(error).split())) from error

    def _generation_prompt(self) -> str:
        try:
            return self._apply([{"role": "user", "content": "Hello"}], generate=True).rstrip()
        except Unusable:
            return ""

    def render(self, conversation: Conversation) -> Rendered:
        """Conversation -> Rendered; raises Unusable."""
        answer, reasoning = self._split_answer(conversation)
        if not answer.strip():
            raise Unusable("empty answer")
        last = conversation.messages[-1] | {"content": answer}
        if self._policy == "given" and reasoning:
            last |= {"reasoning_content": reasoning, "thinking": reasoning}
        messages = [*conversation.prompt, last]
        text = self._apply(messages, conversation.tools)
        check_unicode(text)  # of tools and reasoning, too
        marked = self._apply([*conversation.prompt, last | {"content": MARKER}], conversation.tools)
        at = marked.rfind(MARKER)
        if at < 0:
            raise Unusable("the template drops the answer")
        head, tail = marked[:at], marked[at + len(MARKER) :]
        shown = text[len(head) : len(text) - len(tail)]
        if not (
            text.startswith(head)
            and text.endswith(tail)
            and shown in (answer, answer.strip(), answer.lstrip(), answer.rstrip())
        ):
            raise Unusable("the template changes the answer")
        prompt = self._without_leading_space(head, conversation)
        shown, head = head[len(prompt) :] + shown, prompt
        head, effect = self._with_think_block(head, reasoning)
        return Rendered(head + shown + tail, len(head), len(head) + len(shown), effect)

    def _without_leading_space(self, head: str, conversation: Conversation) -> str:
        """The text before the answer, less the white space between the generation prompt and the answer: where a
        template has such, as Mistral's do, the model writes it itself, in one token with the first word."""
        if not head[-1:].isspace():
            return head
        try:
            prompt = self._apply(conversation.prompt, conversation.tools, generate=True)
        except Unusable:
            return head
        return prompt if head.startswith(prompt) and not head[len(prompt) :].strip() else head

    def _split_answer(self, conversation: Conversation) -> tuple[str, str]:
        """(answer, reasoning): a think block at the beginning of the answer is taken apart.

        Its opening tag may be missing where the generation prompt ends with it; else a closing tag is a word of the
        answer.
        """
        answer, reasoning = conversation.answer, conversation.reasoning
        if self._tags and self._tags[1] in answer and (self._opens_think or answer.lstrip().startswith(self._tags[0])):
            block, _, answer = answer.partition(self._tags[1])
            answer = answer.lstrip("\n")
            reasoning = reasoning or block.replace(self._tags[0], "", 1)
        return answer, reasoning.strip("\n")

    def _with_think_block(self, head: str, reasoning: str) -> tuple[str, str]:
        """The text before the answer with the think block that the policy asks for, and one phrase on what was done."""
        if self._tags is None:
            return head, "no think block: the template has none"
        opening, closing = self._tags
        block = re.search(
            re.escape(opening) + r"((?:(?!" + re.escape(opening) + r").)*?)" + re.escape(closing) + r"\s*\Z",
            head[max(0, head.rfind(opening)) :],
            re.DOTALL,
        )
        start = head.rfind(opening) if block or head.rstrip().endswith(opening) else None
        if self._policy == "none":
            if start is None:
                return head, "no think block: the template puts none"
            return head[:start], "the template's think block removed"
        wanted = reasoning if self._policy == "given" else ""
        kind = "think block as given" if wanted else "empty think block"
        if self._policy == "given" and not wanted:
            kind = "empty think block: no reasoning given"
        if block and block[1].strip() == wanted.strip():
            return head, f"{kind}, by the template"
        if start is None and not (wanted or self._opens_think):
            return head, "no think block: the template puts none"
        effect = "in place of the template's" if block else "added: the template puts none"
        return f"{head[:start]}{opening}\n{wanted}\n{closing}\n\n", f"{kind}, {effect}"


def with_date(template: str, date: datetime.date) -> str:
    """The template with its calls of the clock replaced by the date: the real one would make other tokens every day,
    and Transformers lets no caller replace it."""
    day = datetime.datetime.combine(date, datetime.time())
    return re.sub(
        r"strftime_now\(\s*(['\"])(.*?)\1\s*\)", lambda call: call[1] + day.strftime(call[2]) + call[1], template
    )


def _for_tools(tokenizer: "PreTrainedTokenizerFast", template: str) -> str:
    """The template for conversations with tools: a tokenizer may carry one of its own for them."""
    named = tokenizer.chat_template
    is_own = isinstance(named, dict) and named.get("default") == template
    return named.get("tool_use", template) if is_own else template


def find_template(tokenizer: "PreTrainedTokenizerFast", path: pathlib.Path | None, model: pathlib.Path) -> str:
    """Text of the chat template: of the file `path`, else the tokenizer's own. Failure where there is none."""
    if path is not None:
        try:
            template = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise Failure(ExitCode.NO_INPUT, f"{path}: the template cannot be read: {reason}") from error
    else:
        template = _own_template(tokenizer, model)
    import jinja2

    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], chat_template=template, tokenize=False)
    except jinja2.TemplateSyntaxError as error:
        where = path or f"{model}: chat template"
        raise Failure(ExitCode.BAD_DATA, f"{where}, line {error.lineno}: {error.message}") from error
    except Exception:  # it may want other messages than this one: each example will tell
        pass
    return template


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

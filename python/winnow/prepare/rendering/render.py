"""Conversations to text, by the model's own chat template, and where in that text the answer lies."""

import dataclasses
import datetime
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from winnow.prepare.rendering.template import Template, for_tools
from winnow.prepare.rendering.tool_calls import with_arguments
from winnow.prepare.rows.conversations import Conversation, Tool
from winnow.prepare.rows.messages import Message, check_unicode
from winnow.prepare.unusable import Unusable

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
    tool_calls: str = ""  # what was done with tools and calls of them; empty: there are none


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
        head = conversation.messages[0]["content"] + self._separator + conversation.answer_prefix
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
        self._plain = Template(tokenizer, template, arguments, date)
        self._with_tools = Template(tokenizer, for_tools(tokenizer, template), arguments, date)
        self._policy = think
        self._tags = next((tags for tags in THINK_TAGS if tags[0] in template or tags[1] in template), None)
        self._opens_think = self._tags is not None and self._generation_prompt().endswith(self._tags[0])

    @property
    def words(self) -> frozenset[str]:
        """The string literals of the template."""
        return self._plain.words | self._with_tools.words

    def _generation_prompt(self) -> str:
        try:
            return self._plain.render([{"role": "user", "content": "Hello"}], generate=True).rstrip()
        except Unusable:
            return ""

    def render(self, conversation: Conversation) -> Rendered:
        """Conversation -> Rendered; raises Unusable."""
        answer, reasoning = self._split_answer(conversation)
        if not answer.strip():
            raise Unusable("empty answer")
        prefix = conversation.answer_prefix
        answer = prefix + answer
        last = conversation.messages[-1] | {"content": answer}
        if self._policy == "given" and reasoning:
            last |= {"reasoning_content": reasoning, "thinking": reasoning}
        template = self._with_tools if conversation.tools else self._plain
        prompt, effect_on_calls = with_arguments(template, conversation.prompt, conversation.tools)
        text = template.render([*prompt, last], conversation.tools)
        check_unicode(text)  # of tools and reasoning, too
        marked = template.render([*prompt, last | {"content": MARKER}], conversation.tools)
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
        begin = self._without_leading_space(template, head, prompt, conversation.tools)
        shown, head = head[len(begin) :] + shown, begin
        head, effect = self._with_think_block(head, reasoning)
        whole = head + shown + tail
        start = whole.index(prefix, len(head)) + len(prefix)  # the prefix belongs to the prompt
        return Rendered(whole, start, len(head) + len(shown), effect, effect_on_calls)

    @staticmethod
    def _without_leading_space(
        template: Template, head: str, messages: Sequence[Message], tools: Sequence[Tool] | None
    ) -> str:
        """The text before the answer, less the white space between the generation prompt and the answer: where a
        template has such, as Mistral's do, the model writes it itself, in one token with the first word."""
        if not head[-1:].isspace():
            return head
        try:
            prompt = template.render(messages, tools, generate=True)
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

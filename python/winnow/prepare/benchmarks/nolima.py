"""NoLiMa (arXiv 2502.05167): a needle set, each of its needles hidden in a text of the user's (its books, say).

Each question is asked once per length, with the needle at a random depth: the benchmark's own 26 depths are as many
seeds.
"""

import json

from winnow.common.scoring import Scoring
from winnow.prepare.benchmarks.item import Item, Origin, filled, text, texts
from winnow.prepare.benchmarks.room import longest
from winnow.prepare.rows.conversations import Record
from winnow.prepare.rows.messages import Message
from winnow.prepare.unusable import Unusable

PROMPT = (
    "Read this part of a book, then answer a question about it.\n\n{haystack}\n\nThe answer is in the text, or follows "
    "from it.\n\nQuestion: {question}\n\nGive the answer alone."
)


def read(record: Record, origin: Origin) -> list[Item]:
    questions, tests = record.get("questions"), record.get("tests")
    if not isinstance(questions, dict) or not isinstance(tests, dict) or not questions or not tests:
        raise Unusable("no questions and tests")
    made = []
    for test_name, test in tests.items():
        for kind in questions:
            for most in origin.room.lengths:
                made.append(_item(record, origin, f"{text(record, 'id')}_{test_name}_{kind}", test, kind, most))
    return made


def _item(record: Record, origin: Origin, name: str, test: object, kind: str, most: int) -> Item:
    if not isinstance(test, dict):
        raise Unusable("a test is not an object")
    chance = origin.room.chance("nolima", name, most)
    words = (
        {str(number): word for number, word in enumerate(texts(test, "input_args"), 1)} if "input_args" in test else {}
    )
    if record.get("character_set"):
        words["CHAR"] = chance.choice(_characters(record))
    needle = filled(text(record, "needle"), words)
    question = filled(text(record["questions"], kind), words)
    distractors = record.get("distractors")
    distractor = filled(text(distractors, kind, optional=True), words) if isinstance(distractors, dict) else ""
    is_person = "{CHAR}" in text(record, "needle")
    references = (words["CHAR"],) if is_person and "CHAR" in words else texts(test, "gold_answers")
    template = text(record, "task_template", optional=True) or origin.prompts.get("nolima", PROMPT)
    scoring = Scoring(f"nolima_{kind}", "contains_any", references, references[0], options={"case": True})
    seed = chance.random()

    def make(n: int) -> Item:
        own = origin.room.chance("text", seed)
        sentences = origin.room.stretch(own, n)
        places = sorted(own.choices(range(n + 1), k=2), reverse=True)
        hidden = [needle, distractor] if own.random() < 0.5 else [distractor, needle]
        for place, sentence in zip(places, hidden, strict=True):
            sentences[place:place] = [sentence] if sentence else []
        prompt = filled(template, {"haystack": " ".join(sentences), "question": question})
        system = text(record, "system_prompt", optional=True)
        messages: list[Message] = [{"role": "system", "content": system}] if system else []
        return Item(f"{name}/{most}", [*messages, {"role": "user", "content": prompt}], scoring)

    return longest(make, origin.tokens, most)


def _characters(record: Record) -> tuple[str, ...]:
    """A list, or its JSON text."""
    value = record.get("character_set")
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = [value]
    return texts({"character_set": value}, "character_set")

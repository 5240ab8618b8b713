"""Conversations in which the same is asked several times, as in MRCR: the i-th answer is to be repeated."""

import random
import string

from winnow.common.scoring import Scoring
from winnow.prepare.benchmarks.item import Item
from winnow.prepare.benchmarks.room import Room
from winnow.prepare.generators import words
from winnow.prepare.generators.making import Make
from winnow.prepare.rows.messages import Message
from winnow.prepare.unusable import Unusable

KINDS = ("letter", "story", "report", "note", "speech", "diary entry")
SENTENCES = 3  # of an answer
PREFIX_LETTERS = 10
ORDINALS = ("1st", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th")


def rounds(n_needles: int) -> Make:
    """The answers are passages of the user's text; n_needles of them have the same question, n others another."""

    def make(room: Room, chance: random.Random, name: str, n: int) -> Item:
        if not room.has_text:
            raise Unusable("--haystack is missing: the answers are passages of it")
        if len(room.sentences) < 2 * SENTENCES * n_needles:
            raise Unusable("--haystack has too few sentences")
        topics = [word.split("-")[-1] for word in words.pick(chance, 8)]
        asks = [(kind, topic) for kind in KINDS for topic in dict.fromkeys(topics)]
        needle = asks.pop(chance.randrange(len(asks)))
        order = [needle] * n_needles + [chance.choice(asks) for _ in range(n)]
        chance.shuffle(order)
        text = room.stretch(chance, SENTENCES * len(order))
        messages: list[Message] = []
        answers = []
        for number, (kind, topic) in enumerate(order):
            passage = " ".join(text[SENTENCES * number : SENTENCES * (number + 1)])
            messages.append({"role": "user", "content": f"Write a {kind} about the {topic}."})
            messages.append({"role": "assistant", "content": passage})
            answers += [passage] if (kind, topic) == needle else []
        chosen = chance.randrange(n_needles)
        prefix = "".join(chance.choices(string.ascii_letters + string.digits, k=PREFIX_LETTERS))
        kind, topic = needle
        which = f"{ORDINALS[chosen]} {kind} about the {topic}"
        ask = f"Write {prefix} and then, word by word, your {which}, and nothing else."
        messages.append({"role": "user", "content": ask})
        answer = prefix + answers[chosen]
        scoring = Scoring(f"mrcr_{n_needles}_needles", "sequence_ratio", (answer,), answer, options={"prefix": prefix})
        return Item(name, messages, scoring)

    return make

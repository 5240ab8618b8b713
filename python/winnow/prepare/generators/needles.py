"""RULER's needle tasks (arXiv 2404.06654): keys with values, hidden in a text; the question asks for the values."""

import random
from collections.abc import Callable

from winnow.prepare.benchmarks.item import Item
from winnow.prepare.benchmarks.room import Room
from winnow.prepare.generators import words
from winnow.prepare.generators.making import Make, contains_all


def numbers(chance: random.Random) -> str:
    return str(chance.randrange(10**6, 10**7))


def codes(chance: random.Random) -> str:
    """In the form of a UUID."""
    digits = f"{chance.getrandbits(128):032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def needles(
    task: str,
    n_keys: int = 1,
    n_values: int = 1,
    n_asked: int = 1,
    value: Callable[[random.Random], str] = numbers,
    is_dense: bool = False,
) -> Make:
    """n_keys in the text with n_values each, n_asked of them asked for. is_dense: the text is of further keys."""

    def make(room: Room, chance: random.Random, name: str, n: int) -> Item:
        others = words.pick(chance, n_keys + (n if is_dense else 0))
        keys = others[:n_keys]
        values = {key: [value(chance) for _ in range(n_values)] for key in keys}
        hidden = [_sentence(key, one) for key in keys for one in values[key]]
        chance.shuffle(hidden)
        text = [_sentence(key, value(chance)) for key in others[n_keys:]] if is_dense else room.stretch(chance, n)
        places = sorted(chance.choices(range(n + 1), k=len(hidden)), reverse=True)
        for place, sentence in zip(places, hidden, strict=True):
            text.insert(place, sentence)
        asked = chance.sample(keys, n_asked)
        wanted = [one for key in asked for one in values[key]]
        is_one = len(wanted) == 1
        what, verb = ("value", "is") if is_one else ("values", "are")
        named = asked[0] if len(asked) == 1 else ", ".join(asked[:-1]) + " and " + asked[-1]
        prompt = (
            f"Some keys and their secret values are hidden in the text below. Remember them: I will ask for some.\n\n"
            f"{' '.join(text)}\n\nWhat {verb} the secret {what} of {named} in the text above?"
        )
        return Item(name, prompt, contains_all(task, wanted, f"The secret {what} of {named} in the text {verb}"))

    return make


def _sentence(key: str, value: str) -> str:
    return f"A secret value of {key} is: {value}."

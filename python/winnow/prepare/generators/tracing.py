"""RULER's variable tracking: a chain of assignments spread over a text; which variables hold the value?"""

import random
import string

from winnow.prepare.benchmarks.item import Item
from winnow.prepare.benchmarks.room import Room
from winnow.prepare.generators.making import contains_all

N_HOPS = 4


def variables(room: Room, chance: random.Random, name: str, n: int) -> Item:
    names: list[str] = []
    while len(names) < N_HOPS + 1:
        new = "".join(chance.choices(string.ascii_uppercase, k=5))
        names += [new] if new not in names else []
    value = str(chance.randrange(10000, 100000))
    chain = [f"VAR {names[0]} = {value}."]
    chain += [f"VAR {names[i + 1]} = VAR {names[i]}." for i in range(N_HOPS)]
    text = room.stretch(chance, n)
    places = sorted(chance.choices(range(n + 1), k=len(chain)), reverse=True)
    for place, sentence in zip(places, reversed(chain), strict=True):  # the chain's order is that of the text
        text.insert(place, sentence)
    prompt = (
        "Variables are assigned in the text below. Follow them, from one to the next.\n\n"
        f"{' '.join(text)}\n\nWhich variables hold the value {value}, by themselves or through others?"
    )
    return Item(name, prompt, contains_all("vt", names, f"The {len(names)} variables that hold {value} are:", " "))

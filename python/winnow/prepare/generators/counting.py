"""RULER's aggregation tasks: the words of a list that are common, and the most frequent of made-up words."""

import math
import random
import string

from winnow.prepare.benchmarks.item import Item
from winnow.prepare.benchmarks.room import Room
from winnow.prepare.generators import words
from winnow.prepare.generators.making import contains_all

N_COMMON, COMMON_TIMES, OTHER_TIMES = 10, 30, 3
ALPHA, N_FREQUENT, WORDS_PER_KIND = 2.0, 3, 10


def common_words(room: Room, chance: random.Random, name: str, n: int) -> Item:
    """A numbered list in which ten words stand 30 times and n others 3 times."""
    chosen = words.pick(chance, N_COMMON + n)
    common = chosen[:N_COMMON]
    listed = common * COMMON_TIMES + chosen[N_COMMON:] * OTHER_TIMES
    chance.shuffle(listed)
    prompt = (
        "In the numbered list below some words stand more often than others.\n\n"
        + " ".join(f"{number}. {word}" for number, word in enumerate(listed, 1))
        + f"\n\nWhich {N_COMMON} words stand in the list most often?"
    )
    return Item(name, prompt, contains_all("cwe", common, f"The {N_COMMON} words that stand most often are:"))


def frequent_words(room: Room, chance: random.Random, name: str, n: int) -> Item:
    """Made-up words by a zeta distribution with exponent 2; the most frequent is dots, which do not count."""
    n_words = 40 * n
    n_kinds = max(N_FREQUENT + 2, n_words // WORDS_PER_KIND)
    kinds: set[str] = set()
    while len(kinds) < n_kinds:
        kinds.add("".join(chance.choices(string.ascii_lowercase, k=6)))
    ranked = sorted(kinds)
    chance.shuffle(ranked)
    ranked[0] = "..."
    zeta = math.pi**2 / 6
    text = [word for rank, word in enumerate(ranked, 1) for _ in range(int(n_words * rank**-ALPHA / zeta))]
    chance.shuffle(text)
    prompt = (
        "Count the words of the coded text below. The dots are no words.\n\n"
        f"{' '.join(text)}\n\nWhich {N_FREQUENT} words are the most frequent ones in the coded text?"
    )
    wanted = ranked[1 : 1 + N_FREQUENT]
    return Item(name, prompt, contains_all("fwe", wanted, f"The {N_FREQUENT} most frequent words are:"))

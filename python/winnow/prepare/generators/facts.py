"""Questions on facts spread over a text, as in BABILong (arXiv 2406.10149): people go to places, with things."""

import random

from winnow.common.scoring import Scoring
from winnow.prepare.benchmarks.babilong import PLACES, PROMPT
from winnow.prepare.benchmarks.item import Item, filled
from winnow.prepare.benchmarks.room import Room
from winnow.prepare.generators.making import Make

PEOPLE = ("Anna", "Boris", "Clara", "David")
THINGS = ("book", "lamp", "coin", "rope")
MOVES = ("went to", "moved to", "travelled to", "walked to")


def facts(task: str) -> Make:
    """task: "qa1", where is a person; "qa2", where is a thing; "qa3", where was it before it came there."""
    tell = {"qa1": _people, "qa2": _things, "qa3": _things_before}[task]

    def make(room: Room, chance: random.Random, name: str, n: int) -> Item:
        sentences, question, answer = tell(chance)
        text = room.stretch(chance, n)
        places = sorted(chance.choices(range(n + 1), k=len(sentences)), reverse=True)
        for place, sentence in zip(places, reversed(sentences), strict=True):
            text.insert(place, sentence)
        labels = [place for place in PLACES if place not in question]
        scoring = Scoring(task, "label", (answer,), answer, options={"labels": labels})
        return Item(name, filled(PROMPT, {"input": " ".join(text), "question": question}), scoring)

    return make


def _people(chance: random.Random) -> tuple[list[str], str, str]:
    where: dict[str, str] = {}
    told = []
    for _ in range(chance.randint(2, 10)):
        who = chance.choice(PEOPLE)
        where[who] = chance.choice([place for place in PLACES if place != where.get(who)])
        told.append(f"{who} {chance.choice(MOVES)} the {where[who]}.")
    who = chance.choice(sorted(where))
    return told, f"Where is {who}?", where[who]


def _journey(chance: random.Random, n_stops: int) -> tuple[list[str], str, list[str]]:
    """(facts, a thing, the places where it was): somebody takes it and carries it on; others go about."""
    carrier, *others = chance.sample(PEOPLE, len(PEOPLE))
    thing = chance.choice(THINGS)
    stops = [chance.choice(PLACES)]
    while len(stops) < n_stops:
        stops.append(chance.choice([place for place in PLACES if place not in stops]))
    told = [f"{carrier} {chance.choice(MOVES)} the {stops[0]}.", f"{carrier} took the {thing} there."]
    for stop in stops[1:]:
        told.append(f"{carrier} {chance.choice(MOVES)} the {stop}.")
    if chance.random() < 0.5:  # what was put down stays
        told.append(f"{carrier} put the {thing} down.")
        told.append(f"{carrier} {chance.choice(MOVES)} the {chance.choice([p for p in PLACES if p != stops[-1]])}.")
    for _ in range(chance.randint(2, 8)):
        told.insert(
            chance.randint(0, len(told)), f"{chance.choice(others)} {chance.choice(MOVES)} the {chance.choice(PLACES)}."
        )
    return told, thing, stops


def _things(chance: random.Random) -> tuple[list[str], str, str]:
    told, thing, stops = _journey(chance, 2)
    return told, f"Where is the {thing}?", stops[-1]


def _things_before(chance: random.Random) -> tuple[list[str], str, str]:
    told, thing, stops = _journey(chance, 3)
    return told, f"Where was the {thing} before the {stops[-1]}?", stops[-2]

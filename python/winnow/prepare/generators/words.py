"""Words for keys and lists: as many as are wanted, all different."""

import random

_ADJECTIVES = (
    "amber bold brisk calm clear cold crisp dark deep dense dry dull eager early faint fair fast fine firm flat "
    "fresh gentle grand green grey happy hard heavy high hollow honest idle keen kind large late lean light "
    "little lively long loud low mild narrow neat new noble odd old pale plain proud pure quick quiet rare raw "
    "rich ripe rough round sharp short shy silent simple slim slow small smooth soft solid sour steep still "
    "strong sweet swift tall thick thin tidy tiny warm wide wild wise young"
)
_NOUNS = (
    "anchor apple arrow autumn barrel basket beacon bell birch blanket bottle branch bridge bucket button cabin "
    "candle canyon carpet castle cedar cellar chapel cherry circle cloud clover coast comet copper coral cotton "
    "cradle crane creek crown cushion dagger desert dragon eagle ember engine falcon feather fence fiddle field "
    "flame forest fountain garden gate glacier goose granite hammer harbor harvest helmet heron hill honey island "
    "ivory jacket kettle ladder lagoon lantern lemon lily lizard maple marble meadow mirror monkey mountain "
    "needle oak ocean orchard otter oven paddle palace panther paper pebble pepper pigeon pillow planet pocket "
    "pond prairie puzzle quarry rabbit raven ribbon river robin saddle salmon shadow shell shield silver socket "
    "sparrow spider spoon stable star stone summer table temple thistle ticket tiger timber tower trail tulip "
    "tunnel valley velvet village violet wagon walnut weasel whistle willow window winter wolf wren yarn zebra"
)
FIRST, SECOND = _ADJECTIVES.split(), _NOUNS.split()


def pick(chance: random.Random, count: int) -> list[str]:
    """Different words such as "amber-anchor"; where those do not do, with a second adjective."""
    n_pairs = len(FIRST) * len(SECOND)
    numbers = chance.sample(range(n_pairs * (len(FIRST) if count > n_pairs else 1)), count)
    return [_word(number) for number in numbers]


def _word(number: int) -> str:
    number, second = divmod(number, len(SECOND))
    number, first = divmod(number, len(FIRST))
    return "-".join(([FIRST[number]] if number else []) + [FIRST[first], SECOND[second]])

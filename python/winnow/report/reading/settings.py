"""What layers keep in memory: windows, and types of keys and values."""

from collections import Counter
from collections.abc import Sequence

FULL = 0  # window of a layer with full attention
STORED = "bf16"  # keys and values as they are computed
BITS = {STORED: 16, "fp8": 8, "int8": 8, "int4": 4}  # of an element, by type


def setting_name(window: int, kind: str) -> str:
    """ "512 keys in fp8" or "full attention in fp8", as the program calls them."""
    return ("full attention" if window == FULL else f"{window} keys") + f" in {kind}"


def settings_words(windows: Sequence[int], types: Sequence[str] | None) -> str:
    """ "4 full, 8 \u00d7 512 fp8": widest first, with the types that are not as computed. types: None where unknown."""
    counts = Counter(zip(windows, types or [STORED] * len(windows), strict=True))
    parts = []
    for keys, kind in sorted(counts, key=lambda one: (one[0] != FULL, -one[0], list(BITS).index(one[1]))):
        seen = "full" if keys == FULL else f"\u00d7 {keys:,}"
        parts.append(f"{counts[keys, kind]} {seen}" + (f" {kind}" if kind != STORED else ""))
    return ", ".join(parts)

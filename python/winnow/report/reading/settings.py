"""What layers keep in memory: windows, and types of keys and values."""

from collections.abc import Sequence

from winnow.report.wording import count, listed

FULL = 0  # window of a layer with full attention
STORED = "bf16"  # keys and values as they are computed
BITS = {STORED: 16, "fp8": 8, "int8": 8, "int4": 4}  # of an element, by type


def window_words(windows: Sequence[int]) -> str:
    """ "4 full, 8 \u00d7 512": widest first."""
    sizes = sorted(set(windows) - {FULL}, reverse=True)
    parts = [f"{windows.count(FULL)} full"] if FULL in windows else []
    return ", ".join(parts + [f"{windows.count(size)} \u00d7 {size:,}" for size in sizes])


def type_words(types: Sequence[str]) -> str:
    """ "20 fp8, 4 bf16": narrowest last, as the windows have it; "" where the file has no types."""
    return ", ".join(f"{types.count(name)} {name}" for name in BITS if name in types)


def narrower_words(types: Sequence[str]) -> str:
    """ "fp8 in 20 layers and int4 in 1 layer": types narrower than computed; "" for none."""
    return listed(f"{name} in {count(types.count(name), 'layer')}" for name in BITS if name != STORED and name in types)

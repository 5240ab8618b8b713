"""Names for the types that the whole package passes around."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Scalar = float | str  # of a file: a number or text
Form = Callable[[float], str]  # how a number is written

"""python -m winnow.importing"""

import os
import signal
import sys
from types import FrameType


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Until main() has its own: the imports take a second, in which an interrupt would print where Python was."""
    os.write(2, b"winnow: import: interrupted, nothing was written; the same command begins anew\n")
    os._exit(75)  # ExitCode.INTERRUPTED


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    from winnow.importing.main import main

    sys.exit(main())

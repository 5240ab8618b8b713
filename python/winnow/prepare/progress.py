"""One line on a terminal, a line now and then in a log: how far, how fast, how much longer."""

import sys
import time

from winnow.common.streams import note
from winnow.prepare.rows.sources import Rows

LOG_SECONDS = 30


class Progress:
    def __init__(self, reader: Rows) -> None:
        self._reader = reader
        self._start = self._last = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self.n_rows = self.n_tokens = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def show(self, n_kept: int) -> None:
        now = time.monotonic()
        if now - self._last < (0.5 if self._terminal else LOG_SECONDS):
            return
        self._last = now
        share = min(1, self._reader.bytes_read / max(1, self._reader.bytes_total))
        left = f", {_duration(self.seconds * (1 - share) / share)} left" if share > 0.01 else ""
        line = (
            f"winnow prepare: {self.n_rows} rows, {share:.0%} of {self._reader.bytes_total / 1e6:.0f} MB, "
            f"{n_kept} kept, {self.n_tokens / 1e6:.1f} M tokens at {self.n_tokens / 1e6 / self.seconds:.2f} M/s{left}"
        )
        note(f"\r{line}\x1b[K" if self._terminal else line, end="" if self._terminal else "\n")

    def clear(self) -> None:
        if self._terminal:
            note("\r\x1b[K", end="")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"

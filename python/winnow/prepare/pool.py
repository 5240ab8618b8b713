"""Rows through all cores, results in the order of the input, the same whatever the number of cores."""

import collections
import concurrent.futures
import concurrent.futures.process
import multiprocessing
import signal
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import TypeVar

from winnow.common.errors import ExitCode, Failure
from winnow.prepare import work
from winnow.prepare.rows.sources import Row
from winnow.prepare.selection import Bounds

Result = TypeVar("Result")

BATCH_ROWS = 8
BATCH_BYTES = 512 * 1024
# A batch knows what the reservoir held this many batches before. A fixed number: what is tokenised, and so every count
# of the summary, then depends on the input alone. It is also the most that is in flight, and so bounds the memory.
LAG = 64


class Pool:
    def __init__(self, worker: work.Worker, processes: int) -> None:
        self._board = work.Board(processes)
        self._executor = concurrent.futures.ProcessPoolExecutor(
            processes,
            mp_context=multiprocessing.get_context("fork"),
            initializer=work.start,
            initargs=(worker, self._board),
        )
        with warnings.catch_warnings():
            # Python 3.12 warns of forks beside threads; these are numpy's, which no worker uses.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.wait(self._executor.submit(work.ready))
        self._processes = list(self._executor._processes.values())

    def map(self, rows: Iterable[Row], bounds: Callable[[], Sequence[Bounds]]) -> Iterator[list[work.Outcome]]:
        """Yields the outcomes of batch after batch. bounds(): what the reservoirs can no longer take."""
        pending: collections.deque[Future[list[work.Outcome]]] = collections.deque()
        for batch in _batches(rows):
            if len(pending) == LAG:
                yield self.wait(pending.popleft())
            pending.append(self._executor.submit(work.process, batch, bounds()))
        while pending:
            yield self.wait(pending.popleft())

    def cut(self, conversations: Iterable[bytes], most_tokens: int) -> list[tuple[bytes, int, str]]:
        """work.cut of each, in order."""
        futures = [self._executor.submit(work.cut, data, most_tokens) for data in conversations]
        return [self.wait(future) for future in futures]

    def wait(self, future: Future[Result]) -> Result:
        try:
            return future.result()
        except concurrent.futures.process.BrokenProcessPool as error:
            raise Failure(
                ExitCode.OUT_OF_MEMORY,
                f"a worker process was killed{self._place_of_death()}, perhaps for want of memory; try fewer by "
                "--processes, or leave that row out",
            ) from error

    def _place_of_death(self) -> str:
        """Of the process that ended by itself; the executor then ends the others by SIGTERM."""
        deadline = time.monotonic() + 5
        # The executor waits for them, too. Of two that wait for one process the later sees an exit code after a while.
        while time.monotonic() < deadline:
            for process in self._processes:
                process.join(timeout=0.05)
                if process.exitcode not in (None, 0, -signal.SIGTERM) and process.pid is not None:
                    place = self._board.place_of(process.pid)
                    return f" at {place}" if place else ""
            if all(process.exitcode is not None for process in self._processes):
                break
        return ""

    def __enter__(self) -> "Pool":
        return self

    def __exit__(
        self, failure: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if failure is None:
            self._executor.shutdown()
            return
        # Nothing of theirs is needed any more. The executor's own end could wait for a lock that one of them holds, so
        # the program then leaves by os._exit.
        for process in list((self._executor._processes or {}).values()):
            process.kill()


def _size(payload: object) -> int:
    """Bytes, about."""
    if isinstance(payload, dict):
        return sum(len(value) if isinstance(value, (str, bytes)) else 1024 for value in payload.values())
    return len(payload) if isinstance(payload, bytes) else 1024


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += _size(row.payload)
        if len(batch) == BATCH_ROWS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch

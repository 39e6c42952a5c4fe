"""Threads that list and read images, and a limit to the patience with a silent disk."""

import queue
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from functools import partial
from time import monotonic
from typing import Any, Final, TypeVar, final

import numpy as np
from jaxtyping import UInt8

from noneg.errors import MachineError, printable
from noneg.images.source import ImageSource, Skipped, Unreadable, none_readable_error

T = TypeVar("T")
Task = tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]

PATIENCE: Final = 600
"""Seconds without any image or entry of a folder before reading ends with an error."""

_PARTS: Final = 10

_FAREWELL: Final = 5
"""Seconds until threads that are still reading are left to themselves."""


@final
class ReadingThreads:
    """A few threads that read images of one source.

    A network disk can block for ever. A thread that waits for it cannot be stopped, so it is left
    behind: it does not keep the program from ending, unlike those of `concurrent.futures`.
    """

    def __init__(self, source: ImageSource, count: int) -> None:
        """Start the threads, at least 1."""
        self._source = source
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._reading: dict[int, int] = {}
        self._finished = 0
        threads = [
            threading.Thread(
                target=_work, args=(self._tasks,), name=f"noneg-images-{number}", daemon=True
            )
            for number in range(count)
        ]
        for thread in threads:
            thread.start()
        # Also at the end of the program: a thread within a decoder must not outlive Python.
        self._end = weakref.finalize(self, _end, self._tasks, threads)

    def submit(self, function: Callable[..., T], *arguments: Any) -> "Future[T]":
        """Call the function in one of the threads, when those before it are done."""
        future: Future[T] = Future()
        self._tasks.put((future, function, arguments))
        return future

    def read(
        self, index: int, channels: int, size: int
    ) -> UInt8[np.ndarray, "{channels} {size} {size}"]:
        """`ImageSource.read`, for use within the threads."""
        return self.watched(index, lambda: self._source.read(index, channels, size))

    def watched(self, index: int, read: Callable[[], T]) -> T:
        """Call `read`, known to `wait_for` as the reading of this image."""
        thread = threading.get_ident()
        self._reading[thread] = index
        try:
            return read()
        finally:
            del self._reading[thread]
            self._finished += 1

    def wait_for(self, future: "Future[T]") -> T:
        """The result of a submitted call.

        Raises:
            MachineError: no thread has finished an image for `PATIENCE` seconds.
        """
        return _wait_for(future, lambda: self._finished, self._too_silent)

    def close(self) -> None:
        """Drop what has not begun, and wait a few seconds for the images that are being read."""
        self._end()

    def _too_silent(self) -> MachineError:
        # The oldest is the first.
        index = next(iter(self._reading.values()), None)
        what = "an image" if index is None else f"the image {printable(self._source.name(index))}"
        return MachineError(
            f"{what} of the {self._source.description} could not be read within {PATIENCE:g} "
            "seconds: see why the disk, the network or the data set does not answer"
        )


@final
class Steps:
    """How far a call has come that lists a folder or opens a file.

    Attributes:
        count: of steps so far.
        place: the folder or file that is being looked at.
    """

    def __init__(self) -> None:
        self.count = 0
        self.place = ""


def patiently(call: Callable[[Steps], T]) -> T:
    """Call a function in a thread of its own, which is left behind if the disk blocks.

    Args:
        call: counts its steps, and says where it is.

    Raises:
        MachineError: it has taken no step for `PATIENCE` seconds.
    """
    steps, future = Steps(), Future[T]()
    tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
    tasks.put((future, call, (steps,)))
    tasks.put(None)
    threading.Thread(target=_work, args=(tasks,), name="noneg-list", daemon=True).start()
    return _wait_for(
        future,
        lambda: steps.count,
        lambda: MachineError(
            f"{printable(steps.place)} could not be listed or opened within {PATIENCE:g} seconds: "
            "see why the disk or the network does not answer"
        ),
    )


def _wait_for(
    future: "Future[T]", count: Callable[[], int], too_silent: Callable[[], MachineError]
) -> T:
    """The result, if `count` keeps changing until then."""
    before, silent = count(), 0
    # Counted in parts, so that a process that was suspended does not take it for silence.
    while not wait([future], timeout=PATIENCE / _PARTS).done:
        now = count()
        silent = silent + 1 if now == before else 0
        before = now
        if silent >= _PARTS:
            raise too_silent()
    return future.result()


def _work(tasks: "queue.SimpleQueue[Task | None]") -> None:
    while (task := tasks.get()) is not None:
        future, function, arguments = task
        if future.set_running_or_notify_cancel():
            try:
                result = function(*arguments)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
        # An idle thread must not keep the source alive.
        del task, future, function, arguments
        result = None


def _end(tasks: "queue.SimpleQueue[Task | None]", threads: Sequence[threading.Thread]) -> None:
    while not tasks.empty():
        task = tasks.get()
        if task is not None:
            task[0].cancel()
    for _ in threads:
        tasks.put(None)
    if threading.current_thread() in threads:
        return
    until = monotonic() + _FAREWELL
    for thread in threads:
        thread.join(max(0.0, until - monotonic()))


def read_readable(source: ImageSource, indices: Sequence[int], read: Callable[[int], T]) -> list[T]:
    """`read(index)` for each index, without the images for which it raises `Unreadable`.

    Raises:
        NonegError: none of these images can be read, or the source does not answer.
    """
    results: list[T] = []
    first: Skipped | None = None
    threads = ReadingThreads(source, 1)
    try:
        for index in indices:
            call = threads.submit(threads.watched, index, partial(read, index))
            try:
                results.append(threads.wait_for(call))
            except Unreadable as error:
                first = first or Skipped(source.name(index), str(error))
    finally:
        threads.close()
    if first is not None and not results:
        raise none_readable_error(source, first, len(indices))
    return results

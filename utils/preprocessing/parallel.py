"""A function over many items in several processes, with the results in the order of the items."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import chain, islice
from typing import Any, TypeVar

INLINE = 1000  # items that are processed before workers are started, which takes ten seconds
CHUNK = 16  # items that are sent together
AHEAD = 4  # chunks per process that may be under way: this limits the memory

Item = TypeVar("Item")
Result = TypeVar("Result")
_function: Callable[[Any], Any]  # in a worker process


def map_in_order(
    function: Callable[[Item], Result], items: Iterable[Item], processes: int
) -> Iterator[Result]:
    """Yield `function(item)` for every item, in their order, however many processes there are.

    Items are read, and results are yielded, in the calling process.

    Args:
        function: can be pickled; sent to each process once.
        items: read a few hundred ahead.
        processes: number of workers; with 1, or for few items, everything runs in this process.

    Raises:
        concurrent.futures.process.BrokenProcessPool: a process died, most likely because memory
            ran out.
    """
    items = iter(items)
    if processes == 1:
        yield from map(function, items)
        return
    yield from map(function, islice(items, INLINE))
    if more := list(islice(items, 1)):
        items = chain(more, items)
        yield from _in_processes(function, iter(lambda: list(islice(items, CHUNK)), []), processes)


def _in_processes(
    function: Callable[[Item], Result], chunks: Iterator[list[Item]], processes: int
) -> Iterator[Result]:
    # Not fork: threads of PyTorch and of the tokenizer would deadlock in the copy.
    context = multiprocessing.get_context("forkserver")
    pool = ProcessPoolExecutor(processes, context, _begin, (function,))
    try:
        under_way = deque(pool.submit(_work, chunk) for chunk in islice(chunks, AHEAD * processes))
        while under_way:
            yield from under_way.popleft().result()
            under_way.extend(pool.submit(_work, chunk) for chunk in islice(chunks, 1))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _begin(function: Callable[[Any], Any]) -> None:
    """Receive the function, leave Ctrl-C to the calling process, and end when that ends."""
    global _function
    _function = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _work(items: list[Any]) -> list[Any]:
    return [_function(item) for item in items]

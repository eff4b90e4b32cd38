"""Go through an iterator in a thread, some items ahead of who uses them."""

from __future__ import annotations

__all__ = ["ahead"]

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
# Seconds after which a thread that waits for room looks whether anybody still wants its items.
_LOOK = 0.1


def ahead(items: Iterable[Item], depth: int = 2) -> Iterator[Item]:
    """The items in their order, while a thread already makes the next ``depth`` of them.

    What making them raises is raised where they are used. The thread ends when the items do, or
    when they are no longer wanted.

    Examples
    --------
    >>> list(ahead(i * i for i in range(4)))
    [0, 1, 4, 9]
    """
    made: queue.Queue[tuple[bool, Item | BaseException | None]] = queue.Queue(depth)
    unwanted = threading.Event()

    def put(last: bool, item: Item | BaseException | None) -> None:
        while not unwanted.is_set():
            try:
                made.put((last, item), timeout=_LOOK)
            except queue.Full:
                continue
            return

    def run() -> None:
        try:
            for item in items:
                put(False, item)
                if unwanted.is_set():
                    return
        except BaseException as error:
            put(True, error)
        else:
            put(True, None)

    thread = threading.Thread(target=run, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            last, item = made.get()
            if not last:
                yield item  # type: ignore[misc]
            elif item is None:
                return
            else:
                raise item  # type: ignore[misc]
    finally:
        unwanted.set()
        thread.join()

"""Work ahead of a reader, in a thread: of two that wait for each other neither has to."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")


def made_ahead(items: Generator[T], count: int) -> Generator[T]:
    """The same items, up to `count` of them made ahead of the reader.

    Worth it where the reader waits (for a server) and the maker computes. What `items` raises comes
    to the reader in its place; when the reader leaves, `items` is closed before that is done.
    """
    made: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(count)
    is_left = threading.Event()

    def make() -> None:
        last: BaseException | None = None
        try:
            for item in items:
                made.put((item,))
                if is_left.is_set():
                    break
        except BaseException as error:  # the reader raises it
            last = error
        finally:
            items.close()
            made.put(last)

    maker = threading.Thread(target=make, name="made ahead", daemon=True)
    maker.start()
    try:
        while isinstance(item := made.get(), tuple):
            yield item[0]
        if item is not None:
            raise item
    finally:
        is_left.set()
        while maker.is_alive():
            try:
                made.get(timeout=0.01)
            except queue.Empty:
                continue
        maker.join()

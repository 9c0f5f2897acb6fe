"""Decode image files in threads while the model works on earlier ones; a bounded amount is held in memory.

Pillow decodes without holding the interpreter, so threads are enough. What is opened is the same image, and what goes
wrong is raised where the image is asked for, so results don't depend on which images were decoded ahead.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING

from veridical.records import ImageFile
from veridical.vlm.images.files import open_image

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 100_000_000
"""Pixels held decoded, 3 bytes each; those being decoded come on top."""
MOST_THREADS = 4


class DecodeAhead:
    """Opens images as `open_image` does; those that were announced by `expect` are decoded before they are wanted.

    Used as a context manager, which ends its threads.
    """

    def __init__(self, opens: Callable[[ImageFile], Image] = open_image) -> None:
        self._opens = opens
        self._threads = min(MOST_THREADS, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="decode")
        self._lock = Lock()
        self._waiting: deque[ImageFile] = deque()
        self._decoding: dict[ImageFile, Future[Image]] = {}
        self._pixels: dict[ImageFile, int] = {}

    def expect(self, images: Iterable[object]) -> None:
        """Announce what is wanted next, in order; what was announced earlier and isn't among it is dropped.

        Images that are in memory already are passed over.
        """
        wanted = dict.fromkeys(image for image in images if isinstance(image, ImageFile))
        with self._lock:
            for image in [one for one in self._decoding if one not in wanted]:
                self._decoding.pop(image).cancel()
                self._pixels.pop(image, None)
            self._waiting = deque(image for image in wanted if image not in self._decoding)
            self._submit()

    def __call__(self, image: ImageFile) -> Image:
        """The image, decoded by now or at once. Raises what `open_image` raises."""
        with self._lock:
            started = self._decoding.pop(image, None)
            self._pixels.pop(image, None)
            if image in self._waiting:
                self._waiting.remove(image)
            self._submit()
        return self._opens(image) if started is None or started.cancel() else started.result()

    def __enter__(self) -> DecodeAhead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop what wasn't asked for, and end the threads."""
        self.expect(())
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self) -> None:
        """Start decoding while there is room; the lock is held."""
        while self._waiting and self._room():
            image = self._waiting.popleft()
            self._decoding[image] = self._pool.submit(self._decode, image)

    def _room(self) -> bool:
        under_way = len(self._decoding) - len(self._pixels)
        return under_way < self._threads and sum(self._pixels.values()) < MOST_PIXELS

    def _decode(self, image: ImageFile) -> Image:
        pixels = 0
        try:
            opened = self._opens(image)
            pixels = opened.width * opened.height
            return opened
        finally:
            with self._lock:
                if image in self._decoding:
                    self._pixels[image] = pixels
                    self._submit()

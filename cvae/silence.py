"""What libraries below log through absl, kept from the user: what it means is raised, once and in a sentence."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def quiet(package: str) -> Iterator[None]:
    """Drop what the files of a package log, from any thread.

    absl's logging functions also call `logging.basicConfig`, even for a message nobody sees; a handler that is
    already there stops them from configuring the caller's logging for good.
    """
    logger, placeholder = logging.getLogger("absl"), logging.NullHandler()

    def is_foreign(record: logging.LogRecord) -> bool:
        return package not in Path(record.pathname).parts

    logger.addFilter(is_foreign)
    logging.root.addHandler(placeholder)
    try:
        yield
    finally:
        logging.root.removeHandler(placeholder)
        logger.removeFilter(is_foreign)

"""What libraries log: dropped by the package of their files, from any thread, and nothing else is."""

import logging
import threading

import pytest
from absl import logging as absl_logging

from cvae.silence import quiet


@pytest.fixture
def heard(monkeypatch):
    """What reaches the root logger, on which nobody else listens."""
    records = []

    class Listening(logging.Handler):
        def emit(self, record):
            records.append(record.getMessage())

    monkeypatch.setattr(logging.root, "handlers", [Listening()])
    return records


def test_what_the_package_logs_is_dropped_until_the_end(heard):
    with quiet("tests"):
        absl_logging.error("in between")
        thread = threading.Thread(target=absl_logging.error, args=("in a thread",))
        thread.start()
        thread.join()
    absl_logging.error("afterwards")
    assert [words for words in heard if words != "in a thread"] == ["afterwards"]


def test_what_others_log_is_heard(heard):
    with quiet("orbax"):
        absl_logging.error("of another package")
        logging.getLogger("mine").error("of another logger")
    assert heard == ["of another package", "of another logger"]


def test_the_callers_logging_is_not_configured(monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])
    with quiet("tests"):
        absl_logging.info("nobody sees it")
    assert logging.root.handlers == []

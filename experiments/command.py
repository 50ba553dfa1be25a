"""What every experiment's command line shares: options from a dataclass, and refusals in one line."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

import tyro

import cvae

Settings = TypeVar("Settings")
PROJECT = (Path(cvae.__file__).parent, Path(__file__).parent)


def run(main: Callable[[Settings], object], settings: type[Settings], description: str) -> None:
    """Parse the command line into `settings` and call `main` with it.

    Exit codes: 0, 2 for bad input (one line on stderr), 130 for Ctrl-C, 143 for SIGTERM.
    """
    parsed = tyro.cli(settings, description=description, config=(tyro.conf.OmitArgPrefixes,))
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        main(parsed)
    except cvae.runs.Stopped as stopped:
        without = ", without --fresh," if "--fresh" in sys.argv else ""
        print(f"{stopped}; the same command{without} goes on from there", file=sys.stderr)
        sys.exit(128 + stopped.signal)
    except ValueError as error:
        if not _is_ours(error):
            raise
        _refuse(error)
    except (OSError, FloatingPointError) as error:  # a folder that cannot be written; a loss that is not finite
        _refuse(error)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        sys.exit(130)


def _terminate(number: int, _: object) -> NoReturn:
    print("\nstopped", file=sys.stderr)
    sys.exit(128 + number)


def _refuse(error: Exception) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)


def _is_ours(error: ValueError) -> bool:
    """Whether the project refused an input; a ValueError out of a library is a bug and keeps its traceback."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return Path(frame.filename).parent in PROJECT


def _show_warning(message: Warning | str, category: type[Warning], *rest: object) -> None:
    print(f"warning: {message}", file=sys.stderr)

"""A progress bar over epochs that is never silent: while the first epoch compiles, it says so and for how long."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

if TYPE_CHECKING:
    from cvae.loop import Epoch, Progress

INTERVAL = 0.5  # seconds between refreshes; a notebook stores every one


def bar_options(shown: bool) -> dict[str, Any]:
    """Options of a bar by which it is shown, unless $TQDM_DISABLE is set, or not at all."""
    return {} if shown else {"disable": True}


class Bar:
    """A bar over the epochs of a fit, refreshed at most twice a second."""

    def __init__(self, title: str, epochs: int, done: int = 0, *, disable: bool = False):
        self._bar = tqdm(
            total=epochs,
            initial=done,
            desc=title,
            unit="epoch",
            mininterval=INTERVAL,
            miniters=0,
            **bar_options(not disable),
        )
        self._compiled, self._began = threading.Event(), time.monotonic()
        self._thread = threading.Thread(target=self._tick, daemon=True)
        if not disable:
            self._thread.start()

    def _tick(self) -> None:
        while not self._compiled.wait(INTERVAL):
            self._bar.set_postfix_str(f"compiling, {time.monotonic() - self._began:.0f} s", refresh=True)

    def show(self, progress: Progress) -> None:
        """Advance to where a fit has come, with the losses of the epoch."""
        self._compiled.set()
        part = progress.part
        if part is None:
            self.epoch(progress.history[-1])
            return
        self._bar.set_postfix_str(f"loss {np.mean(part.means.loss):.2f}", refresh=False)
        self._bar.n = math.floor(100 * progress.epochs) / 100
        self._bar.update(0)

    def epoch(self, epoch: Epoch) -> None:
        """Advance by an epoch, with its losses."""
        self._compiled.set()
        text = f"loss {np.mean(epoch.train.loss):.2f}"  # of members side by side, their mean
        text += f", validation {epoch.validation.loss:.2f}" if epoch.validation else ""
        self._bar.set_postfix_str(f"{text}, {epoch.examples_per_second:,.0f} ex/s", refresh=False)
        self._bar.n = math.floor(self._bar.n) + 1
        self._bar.update(0)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._compiled.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._bar.close()

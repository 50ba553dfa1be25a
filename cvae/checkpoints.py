"""Checkpoints: a tree of arrays to disk and back, through Orbax; one, or a series as it changes. Knows no models."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from cvae import checks
from cvae.silence import quiet

LONGEST = 300  # characters of a foreign error
FULL = 2**20  # bytes; a disk with less room is full
NEWEST = 3  # checkpoints of a series that are kept, besides the best


def save(folder: Path, params: Any) -> None:
    """Write the arrays into `folder`, replacing what it held; a reader sees the old or the new, never a part.

    Raises:
        OSError: it cannot be written.
    """
    try:
        with quiet("orbax"), ocp.Checkpointer(ocp.CompositeCheckpointHandler(**_handlers())) as checkpointer:
            checkpointer.save(folder.absolute(), args=_packed(params, {}), force=True)
    except Exception as error:  # of many kinds, by what was being written
        raise OSError(f"parameters cannot be written to {folder}: {_cause(folder.parent, error)}") from error


def restore(folder: Path, like: Any) -> Any:
    """Read the arrays of `folder`, which are those that were saved to the bit.

    Args:
        folder: what `save` wrote.
        like: the tree that is expected, of arrays or of `jax.ShapeDtypeStruct`.

    Raises:
        ValueError: there is no checkpoint, it cannot be read, or a leaf is missing, unexpected, or has another
            shape or dtype than expected; the message names it.
    """
    checks.require(folder.is_dir(), "checkpoint", "be a folder", f"nothing at {folder}")
    with quiet("orbax"), ocp.Checkpointer(ocp.CompositeCheckpointHandler(**_handlers())) as checkpointer:

        def read(**items: Any) -> Any:
            return checkpointer.restore(folder.absolute(), args=ocp.args.Composite(**items))

        def metadata() -> Any:
            return checkpointer.metadata(folder.absolute()).item_metadata

        arrays, _ = _unpacked(read, metadata, like, folder)
    return jax.tree.map(jnp.asarray, arrays)


class Found(NamedTuple):
    """A checkpoint of a series, read back."""

    step: int
    arrays: Any
    record: dict[str, Any]


class Series:
    """Checkpoints of a tree of arrays as it changes, each with a record of plain data: the newest few and the best.

    They are written in the background, a folder a step, which is there whole or not at all. What is read back is
    compared with digests taken when it was saved: a checkpoint that was damaged since is set aside with a warning, and
    the one before it is used.
    """

    def __init__(self, folder: Path):
        self.folder = folder.absolute()
        self._silence = ExitStack()  # of threads in the background too, and so until the end
        self._silence.enter_context(quiet("orbax"))
        for step in self._steps():  # Orbax would stop at a metrics file that it cannot read
            try:
                float(json.loads((self.folder / str(step) / "metrics" / "metrics").read_text())["loss"])
            except (OSError, ValueError, TypeError, KeyError) as error:
                self._set_aside(step, error)
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        best = preservation_policy.BestN(get_metric_fn=lambda metrics: -_loss(metrics), n=1)
        kept = preservation_policy.AnyPreservationPolicy([preservation_policy.LatestN(NEWEST), best])
        options = ocp.CheckpointManagerOptions(
            best_fn=_loss, best_mode="min", preservation_policy=kept, cleanup_tmp_directories=True
        )
        return ocp.CheckpointManager(self.folder, options=options, item_handlers=_handlers())

    def _steps(self) -> list[int]:
        """Those whose folders are there, in order."""
        names = (path.name for path in self.folder.iterdir()) if self.folder.is_dir() else ()
        return sorted(int(name) for name in names if name.isdecimal() and str(int(name)) == name)

    def save(self, step: int, arrays: Any, record: dict[str, Any], loss: float) -> None:
        """Begin to write a checkpoint; the best is that of the lowest loss. Copies the arrays before it returns.

        Raises:
            OSError: this or an earlier one cannot be written; names the newest that is whole.
        """
        packed = _packed(arrays, record)
        with self._told():
            self._manager.save(step, args=packed, metrics={"loss": loss}, force=True)

    def wait(self) -> None:
        """Wait until what was begun is written.

        Raises:
            OSError: as of `save`.
        """
        with self._told():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Let go of the folder; waits.

        Raises:
            OSError: as of `save`.
        """
        try:
            with self._told():
                self._manager.wait_until_finished()
                self._manager.close()
        finally:
            self._silence.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say of whatever Orbax raises, perhaps of an earlier checkpoint, what it means and which one is left."""
        try:
            yield
        except Exception as error:
            steps = self._steps()
            left = f"checkpoint {steps[-1]} is whole" if steps else "there is none before"
            cause = _cause(self.folder, error)
            raise OSError(f"no checkpoint can be written to {self.folder}: {cause}; {left}") from error

    def newest(self, like: Any) -> Found | None:
        """The newest checkpoint that is whole; None if there is none.

        Args:
            like: the tree that is expected, of arrays or of `jax.ShapeDtypeStruct`.
        """
        while steps := self._steps():
            try:
                return self._read(steps[-1], like)
            except Exception as error:  # of many kinds, by what is damaged
                self._manager.close()
                self._set_aside(steps[-1], error)
                self._manager = self._open()
        return None

    def _read(self, step: int, like: Any) -> Found:
        def read(**items: Any) -> Any:
            return self._manager.restore(step, args=ocp.args.Composite(**items))

        found = _unpacked(read, lambda: self._manager.item_metadata(step), like, self.folder / str(step))
        return Found(step, *found)

    def _set_aside(self, step: int, error: Exception) -> None:
        folder = self.folder / str(step)
        aside = self.folder.with_name(f"{self.folder.name}.damaged") / str(step)
        aside.parent.mkdir(exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        warnings.warn(
            f"checkpoint {folder} is damaged ({_line(error)}); set aside as {aside}, and the one before it is used",
            stacklevel=3,
        )


def _handlers() -> dict[str, Any]:
    # Weights do not compress; trying takes a third of what a save costs.
    return {"arrays": ocp.PyTreeCheckpointHandler(use_compression=False), "record": ocp.JsonCheckpointHandler()}


def _packed(arrays: Any, record: dict[str, Any]) -> ocp.args.Composite:
    """What is stored of a tree of arrays and a record: the bytes of all, their names, shapes and dtypes, and digests.

    One array of all bytes, because a damaged file then fails once, not once a leaf in as many threads.
    """
    parts = [np.asarray(leaf).reshape(-1).view(np.uint8) for leaf in leaves(arrays).values()]
    whole = np.concatenate(parts)
    text = json.dumps({"record": record, "leaves": _shapes(arrays), "digest": _digest(whole.data)})
    signed = {"text": text, "digest": _digest(text.encode())}
    return ocp.args.Composite(arrays=ocp.args.PyTreeSave({"bytes": whole}), record=ocp.args.JsonSave(signed))


def _unpacked(
    read: Callable[..., Any], metadata: Callable[[], Any], like: Any, folder: Path
) -> tuple[Any, dict[str, Any]]:
    """The inverse of `_packed`: the arrays, as a tree such as `like`, and the record.

    Raises:
        ValueError: they are not what was saved, or not such a tree.
    """
    with _readable(folder):
        signed = read(record=ocp.args.JsonRestore())["record"]
        same = signed["digest"] == _digest(signed["text"].encode())
    checks.require(same, "checkpoint", "be readable", f"another record than was saved at {folder}")
    with _readable(folder):
        saved = json.loads(signed["text"])
    expected = _shapes(like)
    _check_leaves(saved["leaves"], expected, folder)
    size = sum(np.dtype(dtype).itemsize * math.prod(shape) for shape, dtype in expected.values())
    with _readable(folder):  # asked before memory is taken for what it says
        found = metadata()["arrays"]
        whole = found is not None and tuple(found["bytes"].shape) == (size,)
    checks.require(whole, "checkpoint", "be whole, as Orbax wrote it", f"a damaged one at {folder}")
    with _readable(folder):
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        abstract = {"bytes": jax.ShapeDtypeStruct((size,), np.uint8, sharding=device)}  # type: ignore[no-untyped-call]
        asked = ocp.args.PyTreeRestore(abstract, restore_args=ocp.checkpoint_utils.construct_restore_args(abstract))
        data = np.asarray(read(arrays=asked)["arrays"]["bytes"])
    same = saved["digest"] == _digest(data.data)
    checks.require(same, "checkpoint", "be readable", f"other arrays than were saved at {folder}")
    arrays, first = [], 0
    for shape, dtype in expected.values():
        last = first + np.dtype(dtype).itemsize * math.prod(shape)
        arrays.append(data[first:last].view(dtype).reshape(shape))
        first = last
    return jax.tree.unflatten(jax.tree.structure(like), arrays), saved["record"]


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Orbax raises many kinds of errors; the user has one question: which folder is bad."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"checkpoint must be readable, got {_line(error)} at {folder}") from error


def leaves(tree: Any) -> dict[str, Any]:
    """The arrays of a tree by the paths to them, in its order."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _shapes(tree: Any) -> dict[str, Any]:
    """Shape and dtype of every array of a tree, as JSON has them."""
    return {name: [list(leaf.shape), str(leaf.dtype)] for name, leaf in leaves(tree).items()}


def _line(error: Exception) -> str:
    """An error in a line; those of the library below go on for pages."""
    text = str(error).strip()
    first = text.splitlines()[0].partition(" [tensorstore_spec")[0] if text else "no message"
    return f"{type(error).__name__}: {first if len(first) <= LONGEST else first[:LONGEST] + ' ...'}"


def _cause(folder: Path, error: Exception) -> str:
    """Why something could not be written: a full disk, which the library below says in a hundred words, or another."""
    free = shutil.disk_usage(folder).free
    return f"the disk is full, {free:,} bytes are free" if free < FULL else _line(error)


def _check_leaves(stored: dict[str, Any], expected: dict[str, Any], folder: Path) -> None:
    for leaf in sorted(expected.keys() | stored.keys()):
        name = f"params{leaf}"
        checks.require(leaf in stored, name, "be in the checkpoint", f"no such leaf in {folder}")
        checks.require(leaf in expected, name, "belong to the model", f"an unexpected leaf in {folder}")
        for what, wanted, came in zip(("shape", "dtype"), expected[leaf], stored[leaf], strict=True):
            checks.require(came == wanted, name, f"have {what} {_words(wanted)}", f"{_words(came)} in {folder}")


def _words(shape_or_dtype: list[int] | str) -> str:
    return shape_or_dtype if isinstance(shape_or_dtype, str) else str(tuple(shape_or_dtype))


def _digest(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def _loss(metrics: Any) -> float:
    loss: float = metrics["loss"]
    return loss

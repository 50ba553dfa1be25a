"""Checkpoints: a tree of arrays to disk and back, through Orbax; one, or a series as it changes. Knows no models."""

from __future__ import annotations

import errno
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
OURS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EPERM)  # not the file's fault, but the process's


class Damaged(ValueError):  # noqa: N818
    """A checkpoint is not what was saved."""


def save(folder: Path, params: Any) -> None:
    """Write the arrays into `folder`, replacing what it held, which is there until the new are whole.

    Raises:
        OSError: it cannot be written; what it held is left as it was.
    """
    new, old = (folder.with_name(f".{folder.name}.{age}") for age in ("new", "old"))
    try:
        with quiet("orbax"), ocp.Checkpointer(ocp.CompositeCheckpointHandler(**_handlers())) as checkpointer:
            checkpointer.save(new.absolute(), args=_packed(params, {}), force=True)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
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

        arrays = _arrays(read, metadata, _saved(read, folder), like, folder)
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
                loss = json.loads((self.folder / str(step) / "metrics" / "metrics").read_text())["loss"]
                checks.require(isinstance(loss, float), "loss", "be a number", checks.shown(loss))
            except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
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

    def newest(self, like: Any, accept: Callable[[dict[str, Any]], None] = lambda record: None) -> Found | None:
        """The newest checkpoint that is whole; None if there is none.

        Args:
            like: the tree that is expected, of arrays or of `jax.ShapeDtypeStruct`.
            accept: given its record before its arrays are read, and free to refuse it by an error.

        Raises:
            ValueError: it is whole, but of another tree; names the leaf. It is left where it is.
        """
        while steps := self._steps():
            try:
                return self._read(steps[-1], like, accept)
            except Damaged as error:
                self._manager.close()
                self._set_aside(steps[-1], error)
                self._manager = self._open()
        return None

    def _read(self, step: int, like: Any, accept: Callable[[dict[str, Any]], None]) -> Found:
        folder = self.folder / str(step)

        def read(**items: Any) -> Any:
            return self._manager.restore(step, args=ocp.args.Composite(**items))

        saved = _saved(read, folder)
        accept(saved["record"])
        return Found(
            step, _arrays(read, lambda: self._manager.item_metadata(step), saved, like, folder), saved["record"]
        )

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


def _saved(read: Callable[..., Any], folder: Path) -> dict[str, Any]:
    """What `_packed` said of the arrays: the record, and the names, shapes and dtypes of the leaves and their digest.

    Raises:
        Damaged: it is not what was saved.
    """
    with _readable(folder):
        signed = read(record=ocp.args.JsonRestore())["record"]
        same = signed["digest"] == _digest(signed["text"].encode())
    _require_whole(same, f"another record than was saved at {folder}")
    with _readable(folder):
        saved: dict[str, Any] = json.loads(signed["text"])
        whole = isinstance(saved["leaves"], dict) and isinstance(saved["record"], dict) and "digest" in saved
    _require_whole(whole, f"another record than is saved here at {folder}")
    return saved


def _arrays(
    read: Callable[..., Any], metadata: Callable[[], Any], saved: dict[str, Any], like: Any, folder: Path
) -> Any:
    """The arrays that `_packed` stored, as a tree such as `like`.

    Raises:
        Damaged: they are not what was saved.
        ValueError: they are not such a tree.
    """
    expected = _shapes(like)
    _check_leaves(saved["leaves"], expected, folder)
    size = sum(np.dtype(dtype).itemsize * math.prod(shape) for shape, dtype in expected.values())
    with _readable(folder):  # asked before memory is taken for what it says
        found = metadata()["arrays"]
        whole = found is not None and tuple(found["bytes"].shape) == (size,)
    _require_whole(whole, f"a damaged one at {folder}")
    with _readable(folder):
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        abstract = {"bytes": jax.ShapeDtypeStruct((size,), np.uint8, sharding=device)}  # type: ignore[no-untyped-call]
        asked = ocp.args.PyTreeRestore(abstract, restore_args=ocp.checkpoint_utils.construct_restore_args(abstract))
        data = np.asarray(read(arrays=asked)["arrays"]["bytes"])
    _require_whole(saved["digest"] == _digest(data.data), f"other arrays than were saved at {folder}")
    arrays, first = [], 0
    for shape, dtype in expected.values():
        last = first + np.dtype(dtype).itemsize * math.prod(shape)
        arrays.append(data[first:last].view(dtype).reshape(shape))
        first = last
    return jax.tree.unflatten(jax.tree.structure(like), arrays)


def _require_whole(holds: bool, got: str) -> None:
    if not holds:
        raise Damaged(f"checkpoint must be readable, got {got}")


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Orbax raises many kinds of errors; the user has one question: which folder is bad."""
    try:
        yield
    except Exception as error:
        if isinstance(error, MemoryError) or getattr(error, "errno", None) in OURS:
            raise
        raise Damaged(f"checkpoint must be readable, got {_line(error)} at {folder}") from error


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
    ground = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(ground).free
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
    """A loss to compare; one that is none is the worst."""
    loss: float = metrics["loss"]
    return loss if math.isfinite(loss) else math.inf

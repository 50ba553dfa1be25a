"""Checkpoints: trees of arrays on disk, written by Orbax, with digests that reveal damage. Knows no models.

`Checkpointer` writes the progress of a fit, in the background; `save_tree` and `load_tree` final parameters. The files
are Orbax's standard ones, so that Orbax alone can read them. Beside them lies `sha256.json`, a digest of each file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import math
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from cvae import checks

MANIFEST = "sha256.json"
UNSIGNED = (MANIFEST, "_CHECKPOINT_METADATA", "commit_success.txt")  # of Orbax: written after the rest, hold no arrays
NEWEST = 3  # checkpoints that are preserved, besides the best
FULL = 2**20  # bytes; a disk with less free space is full
PROCESS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EPERM)  # errors that damage no file


class Checkpoint(NamedTuple):
    """A checkpoint that was read back."""

    step: int
    tree: Any
    record: dict[str, Any]


class Checkpointer:
    """Writes a tree of arrays and a record of plain data now and then; preserves the newest three and the best.

    A checkpoint is a folder named after its step, which appears once it is complete. Opening verifies the digests: a
    damaged checkpoint is moved to the folder `damaged`, with a warning, and deleted where a newer one is intact. Use it
    in a `with` statement, or `close` it.
    """

    def __init__(self, folder: Path):
        check_path("folder", folder)
        _silence_orbax()
        self.folder = folder.absolute()
        self._set_damaged_aside()
        best = preservation_policy.BestN(get_metric_fn=lambda metrics: -_loss(metrics), n=1)
        preserved = preservation_policy.AnyPreservationPolicy([preservation_policy.LatestN(NEWEST), best])
        options = ocp.CheckpointManagerOptions(
            best_fn=_loss,
            best_mode="min",
            preservation_policy=preserved,
            cleanup_tmp_directories=True,
            multiprocessing_options=_alone(),
            create=False,
            # Orbax calls this before it renames the folder: a checkpoint never appears without its digests.
            async_options=_in_background(post_finalization_callback=self._sign),
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        alone = _alone()
        tree, plain = (
            kind(multiprocessing_options=alone) for kind in (ocp.StandardCheckpointHandler, ocp.JsonCheckpointHandler)
        )
        handlers = {"tree": tree, "record": plain, "metrics": plain}
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers)
        self._writing = 0

    def save(self, step: int, tree: Any, record: dict[str, Any], loss: float) -> None:
        """Copy the arrays and start to write them; the best checkpoint is that of the lowest loss.

        Raises:
            OSError: this checkpoint or the one before cannot be written; names the newest that is complete.
        """
        items = ocp.args.Composite(tree=ocp.args.StandardSave(_to_host(tree)), record=ocp.args.JsonSave(record))
        with self._explain():
            self._manager.wait_until_finished()
            self._writing = step
            self._manager.save(step, args=items, metrics={"loss": float(loss)}, force=True)

    def newest(self, like: Any) -> Checkpoint | None:
        """Read the newest checkpoint; None if there is none.

        Args:
            like: the expected tree, of arrays or of `jax.ShapeDtypeStruct`. A leaf comes back as a NumPy array where it
                is one, and with its sharding where that spans several devices.

        Raises:
            ValueError: the checkpoint holds another tree; names the leaf.
        """
        self.wait()
        step = self._manager.latest_step()
        if step is None:
            return None
        stored = self._manager.item_metadata(step)["tree"].tree
        check_leaves(stored, like, f"checkpoint {self.folder / str(step)}")
        items = ocp.args.Composite(tree=ocp.args.StandardRestore(_targets(like)), record=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=items)
        return Checkpoint(step, _from_host(like, restored["tree"]), restored["record"])

    def wait(self) -> None:
        """Wait until everything is written.

        Raises:
            OSError: as from `save`.
        """
        with self._explain():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait until everything is written and release the folder.

        Raises:
            OSError: as from `save`.
        """
        with contextlib.ExitStack() as finally_close:
            finally_close.callback(self._manager.close)
            self.wait()

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        with contextlib.suppress(OSError) if error else contextlib.nullcontext():
            self.close()

    def _steps(self) -> list[int]:
        """The complete checkpoints, in order."""
        names = (path.name for path in self.folder.iterdir()) if self.folder.is_dir() else ()
        return sorted(int(name) for name in names if name.isdecimal())

    def _sign(self) -> None:
        """Write the digests of the checkpoint that is being written, in its temporary folder `STEP.SUFFIX`."""
        for path in self.folder.glob(f"{self._writing}.*"):
            _write_manifest(path)

    def _set_damaged_aside(self) -> None:
        aside, newer = self.folder / "damaged", False
        for folder in (self.folder / str(step) for step in reversed(self._steps())):
            damage = _damage(folder)
            if damage and newer:  # most likely a process was killed while it deleted this one, which nobody needs
                shutil.rmtree(folder)
            elif damage:
                aside.mkdir(exist_ok=True)
                shutil.rmtree(aside / folder.name, ignore_errors=True)
                folder.rename(aside / folder.name)
                warnings.warn(f"checkpoint {folder} is damaged ({damage}): ignored, and moved to {aside}", stacklevel=3)
            newer = newer or not damage

    @contextlib.contextmanager
    def _explain(self) -> Iterator[None]:
        """Replace what Orbax raises, perhaps of an earlier checkpoint, by one sentence."""
        try:
            yield
        except Exception as error:
            steps = self._steps()
            rest = f"checkpoint {steps[-1]} is complete" if steps else "no checkpoint is complete"
            cause = _cause(self.folder, error)
            raise OSError(f"no checkpoint can be written to {self.folder}: {cause}; {rest}") from error


def save_tree(folder: Path, tree: Any) -> None:
    """Write a tree of arrays to a folder; what the folder held stays readable until the new tree is complete.

    Raises:
        OSError: the tree cannot be written; the folder is left as it was.
    """
    check_path("folder", folder)
    _silence_orbax()
    new, old = _siblings(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        options = {"multiprocessing_options": _alone(), "async_options": _in_background()}
        with ocp.StandardCheckpointer(**options) as checkpointer:
            checkpointer.save(new.absolute(), _to_host(tree), force=True)
            checkpointer.wait_until_finished()
        _write_manifest(new)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    except Exception as error:  # Orbax raises many kinds
        raise OSError(f"parameters cannot be written to {folder}: {_cause(folder.parent, error)}") from error
    shutil.rmtree(old, ignore_errors=True)


def check_saved(folder: Path, run: Path) -> None:
    """Refuse a run in which `save_tree` has not written this folder yet, whole or not: a fit that is not finished.

    Raises:
        ValueError: says how to finish it.
    """
    held = folder.exists() or any(path.exists() for path in _siblings(folder))
    rule = "hold final parameters (repeat the command that began the fit: it goes on where it stopped)"
    checks.require(held, "run folder", rule, f"{run}, which has none of {folder.name!r} yet")


def load_tree(folder: Path, like: Any) -> Any:
    """Read what `save_tree` wrote, to the bit.

    Args:
        folder: the folder that was written.
        like: the expected tree, as for `Checkpointer.newest`.

    Raises:
        ValueError: nothing was saved there, a file is damaged, or a leaf is missing, unexpected, or of another shape
            or dtype; names the leaf.
    """
    check_path("folder", folder)
    _silence_orbax()
    place = folder
    if not folder.exists():  # a process was killed between the two renames of `save_tree`
        place = next((path for path in _siblings(folder) if path.is_dir() and not _damage(path)), folder)
    checks.require(place.is_dir(), "checkpoint", "be a folder", f"nothing at {folder}")
    damage = _damage(place)
    checks.require(not damage, "checkpoint", "be undamaged", f"{folder} ({damage})")
    with ocp.StandardCheckpointer(multiprocessing_options=_alone()) as checkpointer:
        check_leaves(checkpointer.metadata(place.absolute()).item_metadata.tree, like, f"checkpoint {folder}")
        return _from_host(like, checkpointer.restore(place.absolute(), _targets(like)))


def check_path(name: str, path: Path) -> None:
    r"""Refuse a path below which Orbax cannot read its own files back.

    Orbax looks for files by patterns that include the whole path: `[1]` matches another name, `**` is an error, and `*`
    and `?` match other folders too. TensorStore takes a backslash for a slash, on every system.

    Raises:
        ValueError: names the characters.
    """
    wrong = set("[]*?\\") & set(path.absolute().as_posix())
    checks.require(not wrong, name, "be a path without any of [ ] * ? \\", path)


def check_leaves(tree: Any, like: Any, where: str) -> None:
    """Compare the leaves of two trees by name, shape and dtype.

    Raises:
        ValueError: names the first leaf that differs.
    """
    stored, expected = _leaves(tree), _leaves(like)
    for path in sorted(expected.keys() | stored.keys()):
        name = f"leaf {path}"
        checks.require(path in stored, name, "be saved", f"no such leaf in {where}")
        checks.require(path in expected, name, "belong to the model", f"an unexpected leaf in {where}")
        for what, wanted, got in zip(("shape", "dtype"), expected[path], stored[path], strict=True):
            checks.require(got == wanted, name, f"have {what} {wanted}", f"{got} in {where}")


def _leaves(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of each array of a tree, by its path."""
    paths = jax.tree_util.tree_leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in paths}
    return {name: (tuple(leaf.shape), str(leaf.dtype)) for name, leaf in named.items()}


def _to_host(tree: Any) -> Any:
    """Copy the arrays to the host; those of several processes must be copied to each."""
    return jax.tree.map(np.array, tree)


def _alone() -> ocp.options.MultiprocessingOptions:
    """Orbax's options by which this process writes and reads without waiting for others that it trains with."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    number = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=number, active_processes={number}, barrier_sync_key_prefix=f"process_{number}"
    )


def _in_background(**options: Any) -> ocp.AsyncOptions:
    """Orbax's options of saving in the background.

    Where there are several processes, folders are made at once: made in the background, they are announced by signals
    that all processes share, and one may wait for ever for what another has read.
    """
    return ocp.AsyncOptions(create_directories_asynchronously=jax.process_count() == 1, **options)


def _targets(like: Any) -> Any:
    """The tree that Orbax reads into: NumPy arrays, or the shardings over several devices."""

    def target(leaf: Any) -> Any:
        sharding = getattr(leaf, "sharding", None)
        if sharding is None or len(sharding.device_set) == 1:
            return np.empty(leaf.shape, leaf.dtype)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)  # type: ignore[no-untyped-call]

    return jax.tree.map(target, like)


def _from_host(like: Any, tree: Any) -> Any:
    """Move the arrays to JAX's default device, without committing them to it, where `like` has no NumPy array."""

    def move(leaf: Any, value: Any) -> Any:
        return value if isinstance(leaf, np.ndarray | np.generic) else jnp.asarray(value)

    return jax.tree.map(move, like, tree)


def _write_manifest(folder: Path) -> None:
    """Write the digest of each file of a folder, by its path in it."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in UNSIGNED]
    digests = {path.relative_to(folder).as_posix(): _digest(path) for path in files}
    (folder / MANIFEST).write_text(json.dumps(digests, indent=1), encoding="utf-8")


def _damage(folder: Path) -> str:
    """Describe what is wrong with the files of a folder, by its manifest; empty if nothing is."""
    name = MANIFEST
    try:
        for name, digest in json.loads((folder / MANIFEST).read_text(encoding="utf-8")).items():
            if _digest(folder / name) != digest:
                return f"{name} has changed"
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) in PROCESS:
            raise
        return f"{name} is missing" if isinstance(error, FileNotFoundError) else f"{name} cannot be read"
    return ""


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _siblings(folder: Path) -> tuple[Path, Path]:
    """Where `save_tree` writes, and where it moves what it replaces."""
    return folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")


def _cause(folder: Path, error: Exception) -> str:
    """Why something could not be written, on one line; Orbax and TensorStore report a full disk on many."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < FULL:
        return f"the disk is full, {free:,} bytes are free"
    first = (str(error).strip().splitlines() or ["no message"])[0].partition(" [tensorstore_spec")[0]
    return f"{type(error).__name__}: {first[:300]}"


def _loss(metrics: Any) -> float:
    """A loss to compare by; one that is not finite is the worst."""
    loss = float(metrics["loss"])
    return loss if math.isfinite(loss) else math.inf


def _silence_orbax() -> None:
    """Turn off absl's log: Orbax writes the traceback of each error there, besides raising it."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)

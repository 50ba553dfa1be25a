"""Checkpoints: a nested dict of arrays to disk and back, through Orbax. Knows arrays, not models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from cvae import checks


def save(folder: Path, params: Any) -> None:
    """Write the arrays into `folder`, replacing what it held; a reader sees the old or the new, never a part."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder.absolute(), params, force=True)


def restore(folder: Path, like: Any) -> Any:
    """Read the arrays of `folder`.

    Args:
        folder: what `save` wrote.
        like: the tree that is expected, of arrays or of `jax.ShapeDtypeStruct`.

    Raises:
        ValueError: there is no checkpoint, it cannot be read, or a leaf is missing, unexpected, or has another
            shape or dtype than expected; the message names it.
    """
    checks.require(folder.is_dir(), "checkpoint", "be a folder", f"nothing at {folder}")
    with ocp.StandardCheckpointer() as checkpointer:
        try:
            found = checkpointer.metadata(folder.absolute()).item_metadata
        except Exception as error:  # Orbax raises many kinds; the user has one question: which folder is bad.
            raise ValueError(f"checkpoint must be readable, got {_line(error)} at {folder}") from error
        checks.require(found is not None, "checkpoint", "be whole, as Orbax wrote it", f"a damaged one at {folder}")
        _check_leaves(_leaves(found.tree), _leaves(like), folder)
        try:
            return checkpointer.restore(folder.absolute(), like)
        except Exception as error:
            raise ValueError(f"checkpoint must be readable, got {_line(error)} at {folder}") from error


def _line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}"


def _leaves(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _check_leaves(stored: dict[str, Any], expected: dict[str, Any], folder: Path) -> None:
    for leaf in sorted(expected.keys() | stored.keys()):
        name = f"params{leaf}"
        checks.require(leaf in stored, name, "be in the checkpoint", f"no such leaf in {folder}")
        checks.require(leaf in expected, name, "belong to the model", f"an unexpected leaf in {folder}")
        shape, wanted = tuple(stored[leaf].shape), tuple(expected[leaf].shape)
        checks.require(shape == wanted, name, f"have shape {wanted}", f"{shape} in {folder}")
        dtype, wanted_dtype = stored[leaf].dtype, expected[leaf].dtype
        checks.require(dtype == wanted_dtype, name, f"have dtype {wanted_dtype}", f"{dtype} in {folder}")

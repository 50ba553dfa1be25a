"""Devices: a mesh over whose axes the examples of a batch, and the members of a sweep, are spread.

    with jax.set_mesh(cvae.make_mesh(data=4, member=2)):
        fitted = cvae.fit(model, params, key, x, c, training)

Without a mesh, examples are spread over all devices, or as many as divide the batch. Parameters and the examples of a
data set are copied to every device; each computes with its part of every batch, and gradients are summed over them.
Results are the same up to the order of those sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cvae import checks

DATA, MEMBER = "data", "member"

T = TypeVar("T")


def make_mesh(data: int | None = None, member: int = 1) -> Mesh:
    """A mesh of the first `data` times `member` devices, of all processes; by default all are on the data axis.

    Raises:
        ValueError: there are not so many devices.
    """
    devices, member = jax.devices(), checks.integer("member", member)
    data = len(devices) // member if data is None else checks.integer("data", data)
    rule = f"be at most the number of devices, {len(devices)}"
    checks.require(0 < data * member <= len(devices), "data * member", rule, f"{data} * {member}")
    return Mesh(np.array(devices[: data * member]).reshape(member, data), (MEMBER, DATA))


def mesh_for(batch_size: int = 0, members: int = 1) -> Mesh:
    """The mesh that is set, or one of as many devices as divide the members of a group and the examples of a batch.

    Raises:
        ValueError: the mesh that is set does not divide them.
    """
    mesh = jax.sharding.get_mesh()
    if not {DATA, MEMBER} <= set(mesh.axis_names):
        count = jax.device_count()
        # A member must be on one process's devices, which reads and saves it.
        member = math.gcd(count, members) if jax.process_count() == 1 else 1
        return make_mesh(math.gcd(count // member, batch_size), member)
    data, member = mesh.shape[DATA], mesh.shape[MEMBER]
    checks.require(batch_size % data == 0, "batch_size", f"be a multiple of {data}, the mesh's data axis", batch_size)
    rule = f"be a multiple of {member}, the mesh's member axis"
    checks.require(members == 1 or members % member == 0, "the number of members side by side", rule, members)
    return mesh


def put(mesh: Mesh, tree: T, *axes: str) -> T:
    """Arrays on the devices of a mesh: their leading axes spread over these, or copied to every device."""
    if mesh.size == 1:
        return jax.device_put(tree)  # type: ignore[no-any-return]
    sharding = NamedSharding(mesh, PartitionSpec(*axes))  # type: ignore[no-untyped-call]
    if jax.process_count() > 1:
        return jax.tree.map(lambda leaf: _put_on_all(leaf, sharding), tree)  # type: ignore[no-any-return]
    return jax.device_put(tree, sharding)  # type: ignore[no-any-return]


def _put_on_all(leaf: Any, sharding: NamedSharding) -> Any:
    """An array on devices of several processes, of which each copies its part from its own memory."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        words = _put_on_all(np.asarray(jax.random.key_data(leaf)), sharding)
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
    # `device_put` would first compare what all processes have, in which NaN is unequal to itself.
    array = np.asarray(leaf)
    array = array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def on(mesh: Mesh, function: Callable[..., T]) -> Callable[..., T]:
    """The function, called with this mesh set; that is left out for one device, where nothing is spread."""

    def call(*args: Any, **kwargs: Any) -> T:
        with jax.set_mesh(mesh):
            return function(*args, **kwargs)

    return function if mesh.size == 1 else call


def spread(tree: T) -> T:
    """In a compiled function, a batch spread over the data axis of the mesh that is set, if one is."""
    return _constrained(tree, DATA)


def gathered(tree: T) -> T:
    """In a compiled function, arrays of which every device of the mesh that is set has all, if one is."""
    return _constrained(tree)


def _constrained(tree: T, *axes: str) -> T:
    if not {DATA, MEMBER} <= set(jax.sharding.get_abstract_mesh().axis_names):
        return tree
    return jax.lax.with_sharding_constraint(tree, PartitionSpec(*axes))  # type: ignore[no-untyped-call, no-any-return]

"""Checkpoints: every dtype comes back to the bit, and a damaged file never as other values."""

import errno
import re
import shutil
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from etils import epath

from cvae import checkpoints
from cvae.checkpoints import Checkpoint, Checkpointer


class State(NamedTuple):
    """A tree such as training has: nested tuples of several kinds, and parts that are absent."""

    step: Any
    params: Any
    optimizer: Any
    ema: Any = None


def make_tree(step: int) -> dict:
    """Arrays of several shapes and dtypes, different at each step."""
    rng = np.random.default_rng(step)
    params = {"kernel": rng.normal(size=(5, 7)).astype(np.float32), "layers": [rng.random(3), rng.random((2, 1))]}
    return {"state": State(np.int32(step), params, optax.adam(1e-3).init({"kernel": np.ones((5, 7))})), "best": None}


def assert_same(one: Any, two: Any) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def write(folder: Path, losses: list[float]) -> None:
    """Save a checkpoint for each loss, at the steps 1, 2, ..."""
    with Checkpointer(folder) as checkpointer:
        for step, loss in enumerate(losses, 1):
            checkpointer.save(step, make_tree(step), {"text": f"after {step}"}, loss)


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def newest(folder: Path) -> Checkpoint | None:
    with Checkpointer(folder) as checkpointer:
        return checkpointer.newest(make_tree(0))


def save_and_wait(checkpointer: Checkpointer, step: int) -> None:
    checkpointer.save(step, make_tree(step), {}, 1.0)
    checkpointer.wait()


def disk_full(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    """A folder with two checkpoints."""
    folder = tmp_path_factory.mktemp("checkpoints") / "run"
    write(folder, [3.0, 2.0])
    return folder


@pytest.fixture
def copied(pair, tmp_path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(pair, tmp_path / "run")


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A folder of parameters."""
    folder = tmp_path_factory.mktemp("params") / "cvae"
    checkpoints.save_tree(folder, make_tree(1))
    return folder


def test_the_newest_checkpoint_is_read_back(pair, tmp_path):
    assert newest(tmp_path / "none") is None
    found = newest(pair)
    assert (found.step, found.record) == (2, {"text": "after 2"})
    assert_same(found.tree, make_tree(2))


def test_the_newest_three_and_the_best_are_preserved(tmp_path):
    write(tmp_path / "run", [5.0, 1.0, 4.0, 3.0, 2.0, 6.0])
    assert steps(tmp_path / "run") == [2, 4, 5, 6]
    with Checkpointer(tmp_path / "run") as checkpointer:  # as a new process, which reads the losses from the files
        for step, loss in ((7, 0.5), (8, 9.0), (9, 9.0), (10, 9.0)):
            checkpointer.save(step, make_tree(step), {}, loss)
    assert steps(tmp_path / "run") == [7, 8, 9, 10]


def test_a_loss_that_is_not_finite_is_the_worst(tmp_path):
    write(tmp_path / "run", [1.0, 0.5, 0.9, float("nan"), 0.9, 0.9, float("inf"), 0.8])
    assert steps(tmp_path / "run") == [2, 6, 7, 8]


DTYPES = ["bool", "int8", "uint8", "int32", "uint32", "int64", "float16", "bfloat16", "float32", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_shape_comes_back_to_the_bit(dtype, tmp_path):
    raw = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 256, 6 * 8, dtype=np.uint8)
    array = raw.view(jnp.dtype(dtype))[:6].reshape(2, 3)
    tree = {"matrix": array, "transposed": array.T, "scalar": array[1, 2], "none": None}
    like = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), tree)
    with Checkpointer(tmp_path / "run") as checkpointer:
        checkpointer.save(1, tree, {}, 0.0)
        assert_same(checkpointer.newest(like).tree, tree)
    checkpoints.save_tree(tmp_path / "params", tree)
    assert_same(checkpoints.load_tree(tmp_path / "params", like), tree)


def test_shapes_are_enough_to_read_arrays_of_jax(tmp_path):
    tree = {"a": jnp.arange(6.0).reshape(2, 3), "flag": jnp.array(True), "half": jnp.ones(2, jnp.bfloat16)}
    checkpoints.save_tree(tmp_path / "params", tree)
    loaded = checkpoints.load_tree(tmp_path / "params", jax.eval_shape(lambda: tree))
    assert_same(loaded, tree)
    assert all(isinstance(leaf, jax.Array) and not leaf.committed for leaf in jax.tree.leaves(loaded))


def test_a_sharded_array_comes_back_with_the_sharding_of_like(tmp_path):
    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    array = jax.device_put(np.arange(3.0 * jax.device_count(), dtype=np.float32), sharding)
    checkpoints.save_tree(tmp_path / "params", {"a": array})
    loaded = checkpoints.load_tree(tmp_path / "params", {"a": array})["a"]
    assert loaded.sharding.device_set == sharding.device_set
    np.testing.assert_array_equal(loaded, array)


def test_orbax_alone_reads_the_files(pair, saved):
    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.restore(pair.absolute() / "2" / "tree")
        params = checkpointer.restore(saved.absolute())
    np.testing.assert_array_equal(tree["state"]["params"]["kernel"], make_tree(2)["state"].params["kernel"])
    np.testing.assert_array_equal(params["state"]["params"]["kernel"], make_tree(1)["state"].params["kernel"])


def test_arrays_may_change_once_save_returns(tmp_path):
    tree, donated = make_tree(1), {"a": jnp.arange(200_000, dtype=jnp.float32)}
    overwrite = jax.jit(lambda a: a * 0 - 1, donate_argnums=0)
    with Checkpointer(tmp_path / "numpy") as one, Checkpointer(tmp_path / "jax") as two:
        one.save(1, tree, {"text": "after 1"}, 1.0)
        tree["state"].params["kernel"][:] = 0
        two.save(1, donated, {}, 1.0)
        overwrite(donated["a"]).block_until_ready()
        found = two.newest({"a": np.empty(200_000, np.float32)})
    np.testing.assert_array_equal(found.tree["a"], np.arange(200_000.0))
    assert_same(newest(tmp_path / "numpy").tree, make_tree(1))


DAMAGE = {
    "truncated": lambda data: data[: len(data) // 2],
    "emptied": lambda data: b"",
    "flipped": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
    "deleted": None,
}


def damage(path: Path, kind: str) -> None:
    data = path.read_bytes()
    if kind == "deleted":
        path.unlink()
    elif data:
        path.write_bytes(DAMAGE[kind](data))


def files_of(folder: Path) -> list[Path]:
    return [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]


def is_verified(name: Path) -> bool:
    """Whether damage to a file must be noticed: all but two files that Orbax writes last, and that hold no data."""
    return name.name not in checkpoints.UNSIGNED or name.name == checkpoints.MANIFEST


def blamed(name: Path) -> str:
    """The file that the error names; a changed manifest may name any."""
    return "" if name.name == checkpoints.MANIFEST else f"{name.as_posix()} "


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(kind, pair, tmp_path):
    """Each file in turn."""
    for number, name in enumerate(files_of(pair / "2")):
        folder = shutil.copytree(pair, tmp_path / str(number))
        damage(folder / "2" / name, kind)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = newest(folder)
        assert_same(found.tree, make_tree(found.step))
        assert found.record == {"text": f"after {found.step}"}
        messages = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
        assert found.step == (1 if is_verified(name) else 2)
        assert found.step == 2 or messages[0].startswith(f"checkpoint {folder / '2'} is damaged ({blamed(name)}")
        assert len(messages) == (found.step == 1) == (folder / "damaged" / "2").is_dir()


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_parameters_are_refused(kind, saved, tmp_path):
    for number, name in enumerate(files_of(saved)):
        folder = shutil.copytree(saved, tmp_path / str(number))
        damage(folder / name, kind)
        if is_verified(name):
            with pytest.raises(ValueError, match=re.escape(f"must be undamaged, got {folder} ({blamed(name)}")):
                checkpoints.load_tree(folder, make_tree(0))
        else:
            assert_same(checkpoints.load_tree(folder, make_tree(0)), make_tree(1))


def test_a_checkpoint_is_saved_again_after_damage(copied):
    (copied / "2" / "metrics" / "metrics").write_text("[" * 10_000)
    (copied / "1" / checkpoints.MANIFEST).unlink()
    with pytest.warns(UserWarning, match="is damaged"):
        checkpointer = Checkpointer(copied)
    with checkpointer:
        assert checkpointer.newest(make_tree(0)) is None
        checkpointer.save(2, make_tree(2), {}, 1.0)
    assert newest(copied).step == 2


def test_what_an_interrupted_deletion_left_is_deleted_without_a_warning(copied):
    (copied / "1" / "metrics" / "metrics").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert newest(copied).step == 2
    assert steps(copied) == [2]


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EMFILE, "Too many open files")])
def test_an_error_of_the_process_sets_nothing_aside(error, copied, monkeypatch):
    def fail(path):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "_digest", fail)
        with pytest.raises(type(error)):
            newest(copied)
    assert newest(copied).step == 2


MISFITS = [
    ({"a": np.ones((3, 2), np.float32)}, r"leaf a must have shape \(3, 2\), got \(2, 3\) in checkpoint"),
    ({"a": np.ones((2, 3))}, "leaf a must have dtype float64, got float32 in checkpoint"),
    ({"a": np.ones((2, 3), np.float32), "c": np.ones(1)}, "leaf c must be saved, got no such leaf in checkpoint"),
    ({}, r"leaf a must belong to the model, got an unexpected leaf in checkpoint"),
]


@pytest.mark.parametrize(("like", "message"), MISFITS)
def test_a_tree_that_does_not_fit_is_refused_by_the_leaf(like, message, tmp_path):
    tree = {"a": np.ones((2, 3), np.float32), "b": {"layers": [np.zeros(2)]}}
    checkpoints.save_tree(tmp_path / "params", tree)
    with pytest.raises(ValueError, match=message):
        checkpoints.load_tree(tmp_path / "params", like | {"b": tree["b"]})
    with Checkpointer(tmp_path / "run") as checkpointer:
        checkpointer.save(1, tree, {}, 0.0)
        with pytest.raises(ValueError, match=message):
            checkpointer.newest(like | {"b": tree["b"]})
        assert checkpointer.newest(tree).step == 1


def test_what_was_not_saved_is_refused(tmp_path):
    with pytest.raises(ValueError, match="checkpoint must be a folder, got nothing at"):
        checkpoints.load_tree(tmp_path / "params", make_tree(0))
    (tmp_path / "params").mkdir()
    with pytest.raises(ValueError, match=r"checkpoint must be undamaged, got .*params \(sha256.json is missing\)"):
        checkpoints.load_tree(tmp_path / "params", make_tree(0))


def test_parameters_are_replaced_and_stay_until_the_new_ones_are_complete(tmp_path, monkeypatch):
    folder, like = tmp_path / "params", {"a": np.empty(2, np.float32)}
    ones, zeros = ({"a": np.full(2, value, np.float32)} for value in (1, 0))
    checkpoints.save_tree(folder, ones)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "_write_manifest", disk_full)
        with pytest.raises(OSError, match=r"parameters cannot be written to .*params: OSError: .*No space left"):
            checkpoints.save_tree(folder, zeros)
    assert_same(checkpoints.load_tree(folder, like), ones)
    with monkeypatch.context() as patched:  # killed between the two renames
        rename = Path.rename
        patched.setattr(
            Path, "rename", lambda path, to: disk_full() if path.name == ".params.new" else rename(path, to)
        )
        with pytest.raises(OSError, match="cannot be written"):
            checkpoints.save_tree(folder, zeros)
    assert not folder.exists()
    assert_same(checkpoints.load_tree(folder, like), zeros)
    checkpoints.save_tree(folder, zeros)
    assert [path.name for path in tmp_path.iterdir()] == ["params"]


def test_a_full_disk_is_one_sentence_that_names_the_newest_complete_checkpoint(copied, monkeypatch, caplog):
    checkpointer = Checkpointer(copied)
    with monkeypatch.context() as patched:
        path_type = type(epath.Path(copied))  # Orbax's, in its threads too
        write = path_type.write_text
        patched.setattr(
            path_type, "write_text", lambda path, text: disk_full() if "tree" in str(path) else write(path, text)
        )
        with pytest.raises(
            OSError, match=r"no checkpoint can be written to .*No space left.*; checkpoint 2 is complete"
        ):
            save_and_wait(checkpointer, 3)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "_write_manifest", disk_full)
        patched.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 88, 12))
        with pytest.raises(OSError, match="the disk is full, 12 bytes are free; checkpoint 2 is complete"):
            save_and_wait(checkpointer, 4)
    with suppress(OSError):  # Orbax may raise it once more
        checkpointer.close()
    assert caplog.records == []
    assert newest(copied).step == 2


@pytest.mark.parametrize("name", ["run[1]", "a*", "**", "what?", "back\\slash"])
def test_a_path_that_orbax_cannot_read_back_is_refused(name, tmp_path):
    for call in (Checkpointer, lambda folder: checkpoints.save_tree(folder, {"a": np.ones(1)})):
        with pytest.raises(ValueError, match=r"folder must be a path without any of \[ \] \* \? \\, got"):
            call(tmp_path / name / "checkpoints")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a b", "{x}", "100%", "#1", "~", "é日", "it's", "$HOME"])
def test_other_characters_are_read_back(name, tmp_path):
    checkpoints.save_tree(tmp_path / name / "params", {"a": np.arange(3)})
    loaded = checkpoints.load_tree(tmp_path / name / "params", {"a": np.empty(3, int)})
    assert loaded["a"].tolist() == [0, 1, 2]

"""A series of checkpoints: what is kept, what is read back, and what becomes of every file that is damaged."""

import errno
import shutil
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from cvae import checkpoints

SEED = 3


def tree(step: int) -> dict:
    """Arrays of several shapes and dtypes, other ones each step."""
    rng = np.random.default_rng(step)
    return {"a": {"kernel": rng.normal(size=(5, 7)).astype(np.float32)}, "step": np.int32(step), "b": [rng.random(3)]}


def assert_same(one: dict, two: dict) -> None:
    there, here = checkpoints.leaves(one), checkpoints.leaves(two)
    assert there.keys() == here.keys()
    for name, leaf in there.items():
        assert (leaf.dtype, leaf.shape) == (here[name].dtype, here[name].shape)
        assert np.asarray(leaf).tobytes() == np.asarray(here[name]).tobytes()


def write(folder: Path, losses: list[float]) -> None:
    """A checkpoint a loss, in one process."""
    series = checkpoints.Series(folder)
    for step, loss in enumerate(losses, 1):
        series.save(step, tree(step), {"text": f"after {step}"}, loss)
    series.close()


def kept(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir())


def newest(folder: Path) -> checkpoints.Found | None:
    series = checkpoints.Series(folder)
    found = series.newest(tree(0))
    series.close()
    return found


def test_what_is_saved_comes_back(tmp_path):
    assert newest(tmp_path / "none") is None
    write(tmp_path / "s", [3.0, 2.0])
    found = newest(tmp_path / "s")
    assert (found.step, found.record) == (2, {"text": "after 2"})
    assert_same(found.arrays, tree(2))


def test_the_newest_three_and_the_best_are_kept(tmp_path):
    write(tmp_path / "s", [5.0, 1.0, 4.0, 3.0, 2.0, 6.0])
    assert kept(tmp_path / "s") == [2, 4, 5, 6]
    series = checkpoints.Series(tmp_path / "s")  # also by another process, which has not seen the losses
    series.save(7, tree(7), {}, 0.5)
    series.save(8, tree(8), {}, 9.0)
    series.save(9, tree(9), {}, 9.0)
    series.save(10, tree(10), {}, 9.0)
    series.close()
    assert kept(tmp_path / "s") == [7, 8, 9, 10]


def test_what_is_saved_is_a_copy(tmp_path):
    series, arrays = checkpoints.Series(tmp_path / "s"), tree(1)
    series.save(1, arrays, {}, 1.0)
    arrays["a"]["kernel"][:] = 0
    series.close()
    assert_same(newest(tmp_path / "s").arrays, tree(1))


DAMAGE = {
    "truncated": lambda data: data[: len(data) // 2],
    "emptied": lambda data: b"",
    "flipped": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
    "deleted": None,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("series") / "s"
    write(folder, [3.0, 2.0])
    return folder


@pytest.mark.parametrize("damage", DAMAGE)
def test_whatever_is_damaged_the_one_before_is_used_or_nothing_is_lost(damage, whole, tmp_path):
    """Every file in turn: never other values, and a warning that names the folder where it is not the newest."""
    files = [path.relative_to(whole) for path in sorted((whole / "2").rglob("*")) if path.is_file()]
    assert len(files) > 10
    outcomes = set()
    for number, name in enumerate(files):
        folder = tmp_path / str(number)
        shutil.copytree(whole, folder)
        data = (folder / name).read_bytes()
        if damage == "deleted":
            (folder / name).unlink()
        elif data:
            (folder / name).write_bytes(DAMAGE[damage](data))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = newest(folder)
        assert_same(found.arrays, tree(found.step))
        assert found.record == {"text": f"after {found.step}"}
        outcomes.add(found.step)
        told = [str(warning.message) for warning in said if issubclass(warning.category, UserWarning)]
        if found.step == 1:
            (message,) = told
            assert f"checkpoint {folder / '2'} is damaged (" in message
            assert len(message) < 1000
            assert "\n" not in message
            assert (folder.with_name(f"{number}.damaged") / "2").is_dir()
        else:
            assert told == []
    assert outcomes == {1, 2}


def test_arrays_of_another_model_are_none_of_ours(whole, tmp_path):
    folder = tmp_path / "s"
    shutil.copytree(whole, folder)
    series = checkpoints.Series(folder)
    with pytest.raises(ValueError, match=r"params\['a'\]\['kernel'\] must have shape \(5, 8\), got \(5, 7\) in"):
        series.newest(tree(0) | {"a": {"kernel": np.zeros((5, 8), np.float32)}})
    assert series.newest(tree(0)).step == 2  # it is whole, and left where it is
    series.close()


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EMFILE, "Too many open files")])
def test_what_is_not_the_files_fault_sets_nothing_aside(error, whole, tmp_path, monkeypatch):
    folder = tmp_path / "s"
    shutil.copytree(whole, folder)
    series = checkpoints.Series(folder)

    def fail(*args, **kwargs):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(series._manager, "restore", fail)
        with pytest.raises(type(error)):
            series.newest(tree(0))
    assert series.newest(tree(0)).step == 2
    series.close()


def test_a_loss_that_is_not_finite_is_the_worst(tmp_path):
    series = checkpoints.Series(tmp_path / "s")
    for step, loss in enumerate((1.0, 0.5, 0.9, float("nan"), 0.9, 0.9, float("inf"), 0.8), 1):
        series.save(step, tree(step), {}, loss)
    series.wait()
    assert sorted(int(path.name) for path in (tmp_path / "s").iterdir() if path.name.isdecimal()) == [2, 6, 7, 8]
    series.close()


@pytest.mark.parametrize("text", ['{"loss": "0.5"}', '{"loss": 1' + 400 * "0" + "}", "[" * 10_000, '{"loss": true}'])
def test_metrics_that_are_none_set_their_checkpoint_aside(text, whole, tmp_path):
    folder = tmp_path / "s"
    shutil.copytree(whole, folder)
    (folder / "2" / "metrics" / "metrics").write_text(text)
    with pytest.warns(UserWarning, match="2 is damaged"):
        series = checkpoints.Series(folder)
    series.save(3, tree(3), {}, 1.0)
    series.close()
    assert newest(folder).step == 3


def test_what_cannot_be_written_leaves_what_was_there(tmp_path, monkeypatch):
    folder = tmp_path / "kept"
    ones, zeros = ({"a": np.full(2, value, np.float32)} for value in (1, 0))
    checkpoints.save(folder, ones)

    def full(*args, **kwargs):
        assert folder.is_dir()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(type(epath.Path(folder)), "write_text", full)
        with pytest.raises(OSError, match=r"parameters cannot be written to .*kept"):
            checkpoints.save(folder, zeros)
    assert checkpoints.restore(folder, ones)["a"].tolist() == [1, 1]
    checkpoints.save(folder, zeros)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_folder_that_cannot_be_written_says_what_is_left(whole, tmp_path, monkeypatch):
    folder = tmp_path / "s"
    shutil.copytree(whole, folder)
    series = checkpoints.Series(folder)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(series._manager, "save", full)
    message = (
        r"no checkpoint can be written to .*: OSError: \[Errno 28\] No space left on device; checkpoint 2 is whole"
    )
    with pytest.raises(OSError, match=message):
        series.save(3, tree(3), {}, 1.0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 88, 12))
    with pytest.raises(OSError, match="the disk is full, 12 bytes are free; checkpoint 2 is whole"):
        series.save(3, tree(3), {}, 1.0)
    series.close()


def test_what_fails_in_the_background_is_raised_and_not_logged(whole, tmp_path, monkeypatch, caplog):
    folder = tmp_path / "s"
    shutil.copytree(whole, folder)
    series = checkpoints.Series(folder)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(type(epath.Path(folder)), "write_text", full)  # Orbax's, of its threads too
        series.save(3, tree(3), {}, 1.0)
        with pytest.raises(OSError, match=r"No space left on device; checkpoint 2 is whole"):
            series.wait()
    with suppress(OSError):  # Orbax may say it once more
        series.close()
    assert caplog.records == []

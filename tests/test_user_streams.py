"""A user's arrays that stay on disk: a fit of them from the command line, stopped within an epoch, and refusals."""

import json

import jax
import numpy as np
import polars as pl
import pytest

import cvae
from cvae.streamed import Streamed
from experiments import fit, use
from experiments.harness import user_data, user_streams
from tests.commands import call

N = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images in two parts, labels, and numbers; one class is rare."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("disk") / "data"
    (root / "pixels").mkdir(parents=True)
    for number, part in enumerate(np.split(rng.integers(0, 256, (N, 4, 3), np.uint8), [70])):
        np.save(root / "pixels" / f"{number}.npy", part)
    np.save(root / "digit.npy", np.where(np.arange(N) == 7, 2, np.arange(N) % 2))
    np.save(root / "age.npy", rng.standard_normal(N))
    np.save(root / "short.npy", np.zeros(3))
    return root


def load(folder, *condition, **options):
    return user_streams.load(user_data.Input(data=folder, condition=condition, stream=True, x="pixels", **options))


def test_what_is_trained_on_stays_on_disk_and_the_rest_is_held_out(folder, monkeypatch):
    monkeypatch.setattr(user_streams, "MOST_HELD_OUT", 20)
    data = load(folder, "label=digit", "continuous=age", seed=3)
    x, c = data.train
    assert isinstance(x, Streamed)
    assert (x.shape, c["digit"].dtype, c["age"].shape) == ((260, 4, 3, 1), np.int32, (260, 1))
    assert [len(part[0]) for part in (data.validation, data.test)] == [20, 20]
    every = np.concatenate([part[1]["age"][:] for part in (data.train, data.validation, data.test)])
    np.testing.assert_array_equal(np.sort(every[:, 0]), np.sort(np.load(folder / "age.npy")))
    whole = np.concatenate([np.load(folder / "pixels" / f"{number}.npy") for number in (0, 1)])
    np.testing.assert_array_equal(x[:][..., 0], whole[np.isin(np.load(folder / "age.npy"), c["age"][:])])
    assert isinstance(data.condition, cvae.Mixed)
    assert data.condition.parts[0] == cvae.Label(3, "digit")  # with the class that one row has
    assert "300 examples stay on disk: 260 of them are for training, 20 validate" in data.notes[0]


def test_what_does_not_suit_is_named_by_its_row_in_the_file(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "x").mkdir()
    for number in range(2):
        np.save(tmp_path / "x" / f"{number}.npy", np.where(np.arange(100)[:, None] == 58, np.inf, rng.random((100, 2))))
    np.save(tmp_path / "age.npy", np.where(np.arange(200) == 120, np.nan, rng.random(200)))
    with pytest.raises(ValueError, match=r"'x' must be finite .* at row 58 of .*x/0\.npy"):
        user_streams.load(user_data.Input(data=tmp_path, stream=True, x="x"))
    np.save(tmp_path / "x" / "0.npy", rng.random((100, 2)))
    np.save(tmp_path / "x" / "1.npy", rng.random((100, 2)))
    options = user_data.Input(data=tmp_path, stream=True, x="x", condition=("continuous=age",))
    with pytest.raises(ValueError, match=r"'age' must be finite .* at row 120 of .*age\.npy"):
        user_streams.load(options)


def test_a_part_of_x_may_be_given(folder):
    data = load(folder, "image=top_half")
    np.testing.assert_array_equal(data.train[1]["image"][5:9], data.train[0][5:9])


def test_the_command_fits_and_the_next_ones_read_the_folder(folder, tmp_path):
    out = tmp_path / "run"
    arguments = ["--data", str(folder), "--stream", "--x", "pixels", "--condition", "label=digit", "--epochs", "2"]
    arguments += ["--hidden", "8", "--samples", "5", "--out", str(out), "--no-figures", "--seed", "3"]
    result = call(fit, *arguments)
    assert result.returncode == 0, result.stderr
    assert f"experiments.use score {out} {folder}" in result.stdout
    scored = call(use, "score", str(out), str(folder), "--samples", "5", "--out", str(tmp_path / "scores.npz"))
    assert scored.returncode == 0, scored.stderr
    model, params = cvae.load(out)
    x = np.concatenate([np.load(folder / "pixels" / f"{number}.npy") for number in (0, 1)])[..., None]
    c = {"digit": np.load(folder / "digit.npy")}
    expected = cvae.use.score(model, params, jax.random.key(0), x, c, num_samples=5)["log_likelihood"]
    np.testing.assert_array_equal(np.load(tmp_path / "scores.npz")["log_likelihood"], expected)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["examples"] == {"train": 240, "validation": 30, "test": 30}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table of two files, in which one town and one size are rare."""
    rng, root = np.random.default_rng(1), tmp_path_factory.mktemp("table")
    frame = pl.DataFrame(
        {
            "town": np.where(np.arange(N) == 7, "Ulm", rng.choice(["Bern", "Graz"], N)),
            "size": np.where(np.arange(N) == 9, "large", "small"),
            "price": np.where(np.arange(N) == 5, np.nan, rng.gamma(2.0, 20.0, N)),
        }
    )
    for number, rows in enumerate((frame[:100], frame[100:])):
        rows.write_parquet(root / f"{number}.parquet")
    return root


def test_a_table_stays_on_disk_under_the_schema_of_all_its_rows(table, tmp_path, monkeypatch):
    monkeypatch.setenv("CVAE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(user_streams, "MOST_HELD_OUT", 20)
    options = user_data.Input(data=table, condition=("town",), stream=True, seed=4)
    data = user_streams.load(options)
    x, c = data.train
    assert isinstance(x, Streamed)
    assert (x.shape, c["town"].shape) == ((260, 2), (260,))
    whole = pl.read_parquet(table / "*.parquet")
    assert data.schema == cvae.schema.infer(whole, conditions=("town",))
    expected, _ = data.schema.encode(whole)
    every = np.concatenate([part[0][:] for part in (data.train, data.validation, data.test)])
    np.testing.assert_array_equal(np.sort(every, axis=0), np.sort(expected, axis=0))
    assert isinstance(data.likelihood, cvae.Missing)
    assert data.condition == cvae.Label(3, "town")
    assert not any("no training row" in note for note in data.notes)


def test_the_command_fits_a_table_on_disk(table, tmp_path, monkeypatch):
    """The next commands read its file, or the folder of its files; no row is said to have been of a part."""
    monkeypatch.setenv("CVAE_CACHE_DIR", str(tmp_path / "cache"))
    file, out = tmp_path / "rows.parquet", tmp_path / "run"
    pl.read_parquet(table / "*.parquet").write_parquet(file)
    arguments = ["--stream", "--condition", "town", "--epochs", "2", "--hidden", "8", "--samples", "5"]
    arguments += ["--out", str(out), "--no-figures"]
    result = call(fit, "--data", str(file), *arguments)
    assert result.returncode == 0, result.stderr
    assert f"experiments.use score {out} {file}" in result.stdout
    assert len(list((tmp_path / "cache" / "tables").iterdir())) == 1
    again = call(fit, "--data", str(file), *arguments)
    assert "encoding" not in again.stderr
    assert use.part_of(out, file, N) is None
    scores = []
    for number, source in enumerate((file, table)):
        scores.append(tmp_path / f"{number}.parquet")
        scored = call(use, "score", str(out), str(source), "--samples", "5", "--out", str(scores[-1]))
        assert scored.returncode == 0, scored.stderr
    assert pl.read_parquet(scores[0]).equals(pl.read_parquet(scores[1]))


@pytest.mark.parametrize(
    ("condition", "options", "message"),
    [
        (
            ("label=nothing",),
            {},
            "--condition must name an array of .*, or a mask .*, got label=no",
        ),
        ((), {"column": ("digit=count",)}, "--column must be left out for arrays: it is of a table"),
        (("image=boxes",), {}, "--condition must name an array of .*, got image=boxes"),
        (("continuous=short",), {}, "'short' must hold one entry per example of 'pixels', 300 of them, got 3"),
        ((), {"validation": 0.001}, "--data must leave two examples for each of train, validation and test"),
    ],
)
def test_what_cannot_stay_on_disk_is_refused(condition, options, message, folder):
    with pytest.raises(ValueError, match=message):
        load(folder, *condition, **options)


def test_a_folder_of_arrays_and_tables_is_refused(table, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((9, 2)))
    pl.read_parquet(table / "*.parquet").write_parquet(tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=r"must hold \.npy files or \.parquet files, got both"):
        user_streams.load(user_data.Input(data=tmp_path, stream=True))


def test_options_that_need_it_are_refused_without(folder):
    with pytest.raises(ValueError, match=r"--stream must be given for .*data, a folder of \.npy or \.parquet files"):
        fit.load(user_data.Input(data=folder))
    with pytest.raises(ValueError, match="--skip-damaged must come with --stream"):
        fit.load(user_data.Input(data=folder, skip_damaged=True))
    with pytest.raises(
        ValueError, match=r"--data must be an .npy or a .parquet file, or a folder, with --stream, got mine.npz"
    ):
        fit.load(user_data.Input(data=folder.with_name("mine.npz").relative_to(folder.parent), stream=True))


def test_a_run_that_is_stopped_within_its_first_epoch_ends_at_the_same_bits(folder, tmp_path, monkeypatch):
    """With early stopping, of which there is no best epoch yet."""
    from cvae import loop
    from experiments.harness import run

    def arguments(name):
        found = ["--data", str(folder), "--stream", "--x", "pixels", "--epochs", "2", "--hidden", "8", "--samples", "5"]
        return [*found, "--batch-size", "20", "--out", str(tmp_path / name), "--no-figures", "--seed", "3"]

    monkeypatch.setattr(loop, "CALL_BYTES", 20 * 12 * 3)
    monkeypatch.setattr(run, "SECONDS", 0)
    assert call(fit, *arguments("whole")).returncode == 0
    added, taken = loop._added, []

    def interrupted(*args):
        taken.append(1)
        if len(taken) == 3:
            raise KeyboardInterrupt
        return added(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_added", interrupted)
        assert call(fit, *arguments("stopped")).returncode == 130
    result = call(fit, *arguments("stopped"))
    assert "vae goes on after epoch 0 and 6 steps" in result.stdout
    whole, stopped = (cvae.load(tmp_path / name)[1] for name in ("whole", "stopped"))
    jax.tree.map(np.testing.assert_array_equal, stopped, whole)

"""A fit to each kind of file, and every command on the fitted model: what it writes, or why it refuses."""

import os
import re
import shlex
import shutil

import numpy as np
import polars as pl
import pytest
from PIL import Image

import cvae
from cvae.data import read_images, split_rows
from experiments import fit, use
from experiments.harness import outputs
from tests.commands import assert_refused, call

SIZE, DRAWN, SHAPE = 40, 3, (6, 5)
QUICK = ["--body", "mlp", "--hidden", "6", "--latent-size", "2", "--latent-layers", "1", "--epochs", "1"]
QUICK += ["--batch-size", "8", "--samples", "2", "--no-figures"]
SAMPLED = ("score", "impute", "predict")
FITS = {
    "table.csv": ["--condition", "species", "--column", "age=real"],
    "arrays.npz": ["--x", "pixels", "--condition", "label=kind", "--condition", "continuous=age"],
    "rows.npy": [],
    "images": ["--condition", "species", "--condition", "age"],
}


def make_files(folder):
    """A file of each kind, of the same forty ants and bees."""
    rng = np.random.default_rng(0)
    kind, age = rng.integers(0, 2, SIZE), rng.uniform(1, 9, SIZE).round(2)
    species = np.array(["ant", "bee"])[kind]
    pixels = (100 * kind[:, None, None] + rng.integers(0, 120, (SIZE, *SHAPE))).astype(np.uint8)
    rows = np.where(rng.random((SIZE, 3)) < 0.2, np.nan, rng.normal(50, 9, (SIZE, 3)))
    np.savez(folder / "arrays.npz", pixels=pixels, kind=kind, age=age, names=species)
    np.save(folder / "rows.npy", rows)
    np.save(folder / "pixels.npy", pixels)
    length = pl.Series(rows[:, 0]).round(1).fill_nan(None)
    pl.DataFrame({"species": species, "age": age, "length": length}).write_csv(folder / "table.csv")
    (folder / "images").mkdir()
    files = [f"{k:02d}.{'jpg' if k == 7 else 'png'}" for k in range(SIZE)]
    for name, each in zip(files, pixels, strict=True):
        Image.fromarray(each).save(folder / "images" / name)
    labels = {"site": ["hill"] * SIZE, "file": files, "species": species, "age": age}
    pl.DataFrame(labels).write_csv(folder / "images" / "labels.csv")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A folder with a file of each kind, a run for each, and what the fits printed."""
    folder, printed = tmp_path_factory.mktemp("kinds"), {}
    make_files(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for file, options in FITS.items():
            result = call(fit, "--data", file, "--out", f"runs/{file}", *options, *QUICK)
            assert result.returncode == 0, result.stderr
            printed[file] = result.stdout
    return folder, printed


def command(folder, *arguments):
    """The command in this folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        short = ["--samples", "2"] if arguments[0] in SAMPLED else []
        return call(use, *map(str, arguments), *short)


def contents(path):
    """What a command wrote, by name, as arrays."""
    if path.is_dir():
        images = read_images(path)
        return {"pixels": images.pixels} | {each.name: each.to_numpy() for each in images.table}
    if path.suffix == ".npz":
        return dict(np.load(path))
    return {each.name: each.to_numpy() for each in pl.read_csv(path)}


WORDS, FLOATS, INTS, BYTES = "OU", "f", "i", "u"
EACH, FEW = (SIZE,), (DRAWN,)
LATENTS = {f"z{k}_{name}": (FLOATS, EACH) for k in range(2) for name in ("mean", "std")}
ENCODED = {"part": (WORDS, EACH), "mean": (FLOATS, (SIZE, 2)), "std": (FLOATS, (SIZE, 2))}
SCORES = {"part": (WORDS, EACH)} | {
    name: (FLOATS, EACH) for name in ("log_likelihood", "standard_error", "effective_samples")
}
NAMED = {"file": (WORDS, EACH)}
WITHOUT = "must be fitted to data with missing cells, or with --hide-prob 0.1, to fill in others (images are completed"
# The options of every command, and what it writes: the file, and the names, kinds and shapes in it; or its refusal.
WRITTEN = {
    "table.csv": {
        "generate --condition species=bee": (
            "generate.csv", {"species": (WORDS, FEW), "age": (FLOATS, FEW), "length": (FLOATS, FEW)}
        ),
        "encode": ("table_encode.csv", {"part": (WORDS, EACH)} | LATENTS),
        "score": ("table_score.csv", SCORES | {"unusual": (WORDS, EACH)}
                  | {f"contribution_{name}": (FLOATS, EACH) for name in ("age", "length")}),
        "impute": ("table_impute.csv", {"species": (WORDS, EACH), "age": (FLOATS, EACH), "length": (FLOATS, EACH)}),
        "counterfactual --set species=bee": (
            "table_counterfactual.csv", {"species": (WORDS, EACH), "age": (FLOATS, EACH), "length": (FLOATS, EACH)}
        ),
        "predict species": ("table_predict_species.csv", {
            "part": (WORDS, EACH), "predicted": (WORDS, EACH),
            "probability_ant": (FLOATS, EACH), "probability_bee": (FLOATS, EACH),
        }),
    },
    "arrays.npz": {
        "generate --condition kind=1 --condition age=3": (
            "generate.npz", {"pixels": (FLOATS, (DRAWN, *SHAPE, 1)), "kind": (INTS, FEW), "age": (FLOATS, FEW)}
        ),
        "encode": ("arrays_encode.npz", ENCODED),
        "score": ("arrays_score.npz", SCORES | {"contribution": (FLOATS, (SIZE, *SHAPE, 1))}),
        "impute": WITHOUT,
        "counterfactual --set kind=1": ("arrays_counterfactual.npz", {
            "pixels": (BYTES, (SIZE, *SHAPE)), "kind": (INTS, EACH), "age": (FLOATS, EACH)
        }),
        "predict kind": ("arrays_predict_kind.npz", {
            "part": (WORDS, EACH), "predicted": (INTS, EACH), "probability": (FLOATS, (SIZE, 2))
        }),
    },
    "rows.npy": {
        "generate": ("generate.npz", {"x": (FLOATS, (DRAWN, 3))}),
        "encode": ("rows_encode.npz", ENCODED),
        "score": ("rows_score.npz", SCORES | {"contribution": (FLOATS, (SIZE, 3))}),
        "impute": ("rows_impute.npz", {"rows": (FLOATS, (SIZE, 3))}),
        "counterfactual --set kind=1": "must be conditioned on a label or a number, which --set changes, got a model",
        "predict kind": "COLUMN must be a label that the model is conditioned on, of which it has none",
    },
    "images": {
        "generate --condition species=bee --condition age=3": ("generate", {
            "pixels": (BYTES, (DRAWN, *SHAPE, 1)), "file": (WORDS, FEW), "species": (WORDS, FEW), "age": (FLOATS, FEW)
        }),
        "encode": ("images_encode.csv", NAMED | {"part": (WORDS, EACH)} | LATENTS),
        "score": ("images_score.csv", NAMED | SCORES),
        "impute": WITHOUT,
        "counterfactual --set species=bee": ("images_counterfactual", {
            "pixels": (BYTES, (SIZE, *SHAPE, 1)), "site": (WORDS, EACH), "file": (WORDS, EACH),
            "species": (WORDS, EACH), "age": (FLOATS, EACH),
        }),
        "predict species": ("images_predict_species.csv", NAMED | {
            "part": (WORDS, EACH), "predicted": (WORDS, EACH),
            "probability_ant": (FLOATS, EACH), "probability_bee": (FLOATS, EACH),
        }),
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("file", "options"), [(file, options) for file, each in WRITTEN.items() for options in each], ids=lambda text: text
)
def test_every_command_on_every_kind_of_file(file, options, fitted):
    folder, _ = fitted
    name, *rest = options.split()
    given = ["--count", DRAWN] if name == "generate" else [file]
    result = command(folder, name, f"runs/{file}", *given, *rest)
    expected = WRITTEN[file][options]
    if isinstance(expected, str):
        assert_refused(result, expected)
        return
    assert result.returncode == 0, result.stderr
    place, arrays = expected
    assert f"runs/{file}/use/{place}" in result.stdout
    found = contents(folder / "runs" / file / "use" / place)
    assert list(found) == list(arrays)
    for each, (kinds, shape) in arrays.items():
        assert found[each].dtype.kind in kinds, each
        assert found[each].shape == shape, each
    if "part" in found:
        for part, rows in split_rows(SIZE, 0)._asdict().items():
            assert set(found["part"][rows]) == {part}
    for condition, value in re.findall(r"(\w+)=(\w+)", options):
        assert set(found[condition].astype(str)) <= {value, f"{value}.0"}


@pytest.mark.parametrize("file", FITS)
def test_the_commands_that_a_fit_prints_can_be_called_as_they_are(file, fitted):
    folder, printed = fitted
    commands = [shlex.split(line)[3:] for line in printed[file].splitlines() if "experiments.use" in line]
    words = {"table.csv": 6, "arrays.npz": 5, "rows.npy": 4, "images": 5}
    assert len(commands) == words[file]
    for arguments in commands:
        assert command(folder, *arguments).returncode == 0


def test_the_summary_is_of_the_test_part_where_the_file_is_that_of_the_fit(fitted):
    folder, _ = fitted
    result = command(folder, "predict", "runs/images", "images", "species")
    found = pl.read_csv(folder / "runs/images/use/images_predict_species.csv")
    truth = pl.read_csv(folder / "images/labels.csv")["species"]
    right = (found["predicted"] == truth).filter(found["part"] == "test").mean()
    assert f"; {right:.1%} of the 4 known values of the test part" in result.stdout
    result = command(folder, "score", "runs/table.csv", "table.csv")
    scored = pl.read_csv(folder / "runs/table.csv/use/table_score.csv").filter(pl.col("part") == "test")
    assert f"{scored['log_likelihood'].mean():.2f} ± " in result.stdout
    assert "nats per row of the test part" in result.stdout


def test_rows_that_the_fit_did_not_have_are_of_no_part(fitted):
    """As many rows of other values, of the same values in another order, or without a column."""
    folder, _ = fitted
    table = pl.read_csv(folder / "table.csv")
    for name, rows in {"other": table.with_columns(age=pl.col("age") + 1), "turned": table.reverse()}.items():
        rows.write_csv(folder / f"{name}.csv")
        result = command(folder, "encode", "runs/table.csv", f"{name}.csv")
        assert result.returncode == 0, result.stderr
        assert "part" not in pl.read_csv(folder / f"runs/table.csv/use/{name}_encode.csv").columns
    table.drop("species").write_csv(folder / "unnamed.csv")
    result = command(folder, "predict", "runs/table.csv", "unnamed.csv", "species")
    assert "known values" not in result.stdout
    table.write_parquet(folder / "same.parquet")  # the same content is the same data
    command(folder, "encode", "runs/table.csv", "same.parquet")
    assert "part" in pl.read_parquet(folder / "runs/table.csv/use/same_encode.parquet").columns


def test_images_are_written_under_their_names_and_replaced_by_a_second_run(fitted):
    folder, _ = fitted
    out = folder / "runs" / "images" / "use" / "images_counterfactual"
    for word in ("bee", "ant"):
        result = command(folder, "counterfactual", "runs/images", "images", "--set", f"species={word}", "--mean")
        assert f"40 images: {out.relative_to(folder)}" in result.stdout
    before, after = read_images(folder / "images"), read_images(out)
    assert [name.replace("07.jpg", "07.png") for name in before.table["file"]] == after.table["file"].to_list()
    assert set(after.table["species"]) == {"ant"}
    assert after.table.drop("file", "species").equals(before.table.drop("file", "species"))
    model, params = cvae.load(folder / "runs" / "images")
    c = {"species": before.table["species"].to_numpy(), "age": before.table["age"].to_numpy()[:, None]}
    found = cvae.use.counterfactual(
        model, params, use.jax.random.key(0), before.pixels, c, species="ant", mean=True
    )  # fmt: skip
    np.testing.assert_array_equal(after.pixels, np.rint(255 * found["x"]))
    assert [path.name for path in out.parent.glob(".*")] == []


def test_a_folder_that_cannot_be_replaced_stays_as_it_was(tmp_path, monkeypatch):
    images = outputs.Folder(np.zeros((2, *SHAPE, 1), np.uint8), pl.DataFrame({"file": ["a.png", "b.png"]}), "file")
    outputs.write(tmp_path / "drawn", images)
    replace = type(tmp_path).replace

    def interrupted(path, target):
        if path.name.endswith(str(os.getpid())):
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(type(tmp_path), "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        outputs.write(tmp_path / "drawn", images._replace(pixels=images.pixels + 9))
    assert [path.name for path in tmp_path.iterdir()] == ["drawn"]
    assert read_images(tmp_path / "drawn").pixels.max() == 0


def test_results_on_images_may_be_arrays_and_those_on_arrays_a_table(fitted):
    folder, _ = fitted
    result = command(folder, "predict", "runs/images", "images", "species", "--out", "species.npz")
    assert result.returncode == 0, result.stderr
    found = np.load(folder / "species.npz")
    assert found["file"][7] == "07.jpg"
    assert set(found["predicted"]) <= {"ant", "bee"}
    command(folder, "score", "runs/rows.npy", "rows.npy", "--out", "scores.csv")
    names = ["part", "log_likelihood", "standard_error", "effective_samples"]
    assert pl.read_csv(folder / "scores.csv").columns == [*names, *(f"contribution_{k}" for k in range(3))]
    result = command(folder, "generate", "runs/arrays.npz", "--count", 4, "--condition", "kind=0", "--condition",
                     "age=2", "--out", "drawn")  # fmt: skip
    assert read_images(folder / "drawn").table["kind"].to_list() == [0] * 4


def test_a_model_that_hid_cells_in_training_imputes_those_of_another_file(fitted):
    folder, _ = fitted
    pixels = np.load(folder / "pixels.npy") / 255
    np.save(folder / "floats.npy", pixels)
    pixels[3, 2, 1] = np.nan
    np.save(folder / "gaps.npy", pixels)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert call(fit, "--data", "floats.npy", "--hide-prob", "0.2", "--out", "runs/hidden", *QUICK).returncode == 0
    assert_refused(command(folder, "impute", "runs/hidden", "images"), "FILE must have a missing number, NaN, got none")
    assert command(folder, "impute", "runs/hidden", "gaps.npy", "--draws", 2).returncode == 0
    use_folder = folder / "runs" / "hidden" / "use"
    completed = np.load(use_folder / "gaps_impute.npz")["gaps"]
    assert np.argwhere(completed != pixels).tolist() == [[3, 2, 1]]
    assert 0 < completed[3, 2, 1] < 1
    assert np.load(use_folder / "gaps_impute_draws.npz")["gaps"].shape == (2 * SIZE, *SHAPE)


def test_labels_of_any_type_are_known_values(fitted):
    """Of an .npz file whose labels are whole floats or bool, and of a folder whose name has a point."""
    folder, _ = fitted
    arrays = {name: values[1:] for name, values in np.load(folder / "arrays.npz").items()}
    for dtype in (int, float, bool):
        np.savez(folder / "typed.npz", **arrays | {"kind": arrays["kind"].astype(dtype)})
        result = command(folder, "predict", "runs/arrays.npz", "typed.npz", "kind")
        predicted = np.load(folder / "runs/arrays.npz/use/typed_predict_kind.npz")["predicted"]
        assert f"{(predicted == arrays['kind']).mean():.1%} of the 39 known values\n" in result.stdout
    shutil.copytree(folder / "images", folder / "images.v2", dirs_exist_ok=True)
    assert command(folder, "counterfactual", "runs/images", "images.v2", "--set", "age=2").returncode == 0
    assert (folder / "runs/images/use/images_v2_counterfactual/labels.csv").is_file()


def test_rows_are_drawn_for_the_conditions_of_any_file(fitted):
    folder, _ = fitted
    for file, name in {"table.csv": "species", "arrays.npz": "kind", "images": "species"}.items():
        given = contents(folder / file)
        out = {"table.csv": "given.csv", "arrays.npz": "given.npz", "images": "given"}[file]
        result = command(folder, "generate", f"runs/{file}", "--given", file, "--out", out)
        assert result.returncode == 0, result.stderr
        np.testing.assert_array_equal(contents(folder / out)[name], given[name])
    assert read_images(folder / "given").table["file"][8] == "08.png"


@pytest.mark.parametrize("mask", ["left_half", "random_pixels", "seen"])
def test_images_are_completed(mask, fitted):
    """Of a model that is conditioned on a part of x, the images of a file are that condition."""
    folder, _ = fitted
    arrays = dict(np.load(folder / "arrays.npz"))
    np.savez(folder / "part.npz", pixels=arrays["pixels"], seen=np.arange(SHAPE[1]) < np.full(SHAPE, 2))
    run = f"runs/{mask}"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        options = ["--x", "pixels", "--condition", f"image={mask}", "--out", run, *QUICK]
        assert call(fit, "--data", "part.npz", *options).returncode == 0
    assert_refused(command(folder, "generate", run), "--given must name a file or folder of images to complete")
    assert_refused(
        command(folder, "generate", run, "--condition", "image=1"), "--condition must be a label or a number ("
    )
    assert_refused(
        command(folder, "counterfactual", run, "part.npz"), "must be conditioned on a label or a number, which"
    )
    result = command(folder, "generate", run, "--given", "part.npz")
    assert result.returncode == 0, result.stderr
    assert np.load(folder / run / "use" / "generate.npz")["pixels"].shape == (SIZE, *SHAPE, 1)
    result = command(folder, "score", run, "part.npz")
    assert "of the test part" in result.stdout
    file = "pixels.npy"
    if mask == "seen":
        assert_refused(
            command(folder, "score", run, file), "pixels.npy must hold the masks 'seen', got one array alone"
        )
    else:
        assert command(folder, "score", run, file).returncode == 0


REFUSED = {
    "generate runs/images --condition species=cow --condition age=3": "'species' must be one of 'ant', 'bee', the",
    "generate runs/images --condition kind=1": "condition must be one of species, age, got 'kind'",
    "generate runs/images": "--condition must be given for species, age, such as --condition species='ant' --condition",
    "generate runs/images --condition species=ant --condition age=3 --out images":
        "--out must be a new or empty folder (delete it first, or name another), got images",
    "generate runs/images --condition species=ant --condition age=3 --out drawn.csv":
        "--out must end in .npz or .png, or name a folder, without any suffix, got 'drawn.csv'",
    "counterfactual runs/images images --set species=cow": "must be one of 'ant', 'bee', the values",
    "counterfactual runs/images images --set species=ant --out images": "--out must be another path than the one that",
    "encode runs/images images --out latents": "--out must end in .npz or .csv or .parquet, got 'latents'",
    "encode runs/images new": "column 'species' must be one of 'ant', 'bee', the values in the training rows, got",
    "encode runs/images gaps": "condition 'species' must be known in every row, got a missing one at row 1",
    "encode runs/images ages": "condition 'age' must be known in every row, got a missing one at row 0",
    "encode runs/images plain": "plain must hold the condition 'species', got no labels.csv",
    "predict runs/images plain species": "plain must hold the condition 'age', got no labels.csv",
    "encode runs/images wide": "wide must hold examples of shape [N, 6, 5, 1], as the model was fitted to, got",
    "encode runs/images pixels.npy": "pixels.npy must hold the condition 'species', got one array alone (numpy.savez",
    "encode runs/images table.csv": "table.csv must be arrays, .npz, .npy or a folder of them, or a folder of",
    "encode runs/images nowhere": "or a folder of images, as the model was fitted to, got no such file",
    "encode runs/rows.npy pixels.npy": "pixels.npy must hold examples of shape [N, 3], as the model was fitted to, got",
    "encode runs/table.csv images": "images must be a table, .csv, .parquet or a folder of these, as the model was",
    "encode runs/arrays.npz none.npz": "FILE must hold at least one example, got shape (0, 6, 5, 1)",
    "encode runs/arrays.npz rows.npy --x kind": "rows.npy must hold examples of shape [N, 6, 5, 1]",
}  # fmt: skip


@pytest.mark.parametrize(("options", "message"), REFUSED.items(), ids=REFUSED.keys())
def test_what_is_refused(options, message, fitted):
    folder, _ = fitted
    for name, shape in {"new": SHAPE, "gaps": SHAPE, "ages": SHAPE, "plain": SHAPE, "wide": (3, 9)}.items():
        (folder / name).mkdir(exist_ok=True)
        for k in range(2):
            Image.fromarray(np.zeros(shape, np.uint8)).save(folder / name / f"{k}.png")
    np.savez(folder / "none.npz", pixels=np.zeros((0, *SHAPE), np.uint8), kind=np.zeros(0, int), age=np.zeros(0))
    (folder / "new" / "labels.csv").write_text("file,species,age\n0.png,ant,2\n1.png,cow,3\n")
    (folder / "ages" / "labels.csv").write_text("file,species,age\n0.png,ant,\n1.png,ant,3\n")
    (folder / "gaps" / "labels.csv").write_text("file,species,age\n0.png,ant,2\n1.png,,3\n")
    assert_refused(command(folder, *options.split()), message)

"""A user's arrays: how they are read, what is noted, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cvae
from experiments.harness import user_arrays, user_data

N = 40
RNG = np.random.default_rng(2)
THIRDS = np.arange(N) % 3
LATE = int(cvae.data.split_rows(N, 0).test[0])
GREY = RNG.random((N, 6, 3, 1))
ARRAYS = {
    "x": RNG.integers(0, 256, (N, 4, 3), dtype=np.uint8),
    "rows": RNG.standard_normal((N, 3)),
    "line": RNG.standard_normal(N),
    "digit": THIRDS,
    "short": THIRDS[1:],
    "age": RNG.standard_normal(N),
    "negative": np.where(np.arange(N) == 5, -2, THIRDS),
    "codes": np.where(np.arange(N) == 5, 10**9, THIRDS),
    "late": np.where(np.arange(N) == LATE, 3, THIRDS),
    "zeros": np.zeros(N, int),
    "one_hot": np.eye(3)[THIRDS],
    "column": THIRDS[:, None],
    "names": np.array(list("abc"))[THIRDS],
    "holes": np.where(np.arange(N) == 3, np.nan, 1.0),
    "huge": np.where(np.arange(N) == 3, 1e300, 1.0),
    "wide": np.zeros((N, 2, 2)),
    "all_seen": np.ones((4, 3), bool),
    "one_seen": np.broadcast_to(np.arange(N)[:, None, None] == 6, (N, 4, 3)),
    "turned": np.zeros((3, 4), bool),
    "top_half": np.zeros((4, 3), bool),
    "integers": RNG.integers(0, 256, (N, 4, 3)),
    "twelve_bits": RNG.integers(0, 4096, (N, 4, 3), dtype=np.uint16),
    "channels_first": RNG.integers(0, 256, (N, 3, 32, 32), dtype=np.uint8),
    "infinite": np.where(np.arange(N)[:, None] == 7, np.inf, RNG.standard_normal((N, 2))),
    "unknown": np.full((N, 2), np.nan),
    "same": np.full((N, 3), 4.0),
    "few": RNG.standard_normal((10, 2)),
    "empty": np.zeros((0, 4, 3), np.uint8),
    "shift": RNG.standard_normal(N),
}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("user_data") / "mine.npz"
    np.savez(path, **ARRAYS)
    return path


def load(path, x, *condition, **options):
    return user_arrays.load(user_data.Input(data=path, x=x, condition=condition, **options))


def of(tmp_path, **arrays):
    """The path of a file with these arrays."""
    np.savez(tmp_path / "some.npz", **arrays)
    return tmp_path / "some.npz"


REFUSED = {
    "pixel": r"--x must name an array of .*mine.npz, one of x, rows, .*, got pixel",
    "line": r"'line' must have shape .*, got \(40,\) \(add an axis: x\[:, None\]\)",
    "integers": r"'integers' must be uint8 or floats, .*got int64 values \(save x.astype\('uint8'\)\)",
    "twelve_bits": r"'twelve_bits' must be uint8 or floats, .*uint16 values \(save x / 4095",
    "channels_first": r"got \(40, 3, 32, 32\), channels first \(save numpy.moveaxis\(x, 1, -1\)\)",
    "infinite": r"'infinite' must be finite numbers, .*inf at row 7 \(numpy.isfinite\(x\).all\(axis=\(1,\)\) are",
    "unknown": r"'unknown' must hold a number, got missing ones \(NaN\) only",
    "same": "'same' must vary, got 4 throughout, in the training part",
    "few": "'few' must leave two examples for each .*--validation and --test.*1, 1. of 10",
    "empty": r"'empty' must hold something, got shape \(0, 4, 3\)",
    "x age": "--condition must be KIND=NAME, such as label=digit, got 'age'",
    "x labels=digit": "--condition must be of a kind among label, continuous, image, got 'labels=digit'",
    "x label=digit continuous=digit": "must name every array once, got 'digit' twice",
    "x continuous=x": "--condition must name another array than --x",
    "x continuous=shift": "must name an array other than x, image, observed, shift",
    "x label=digits": "must name an array of .*mine.npz, one of x, .*, got label=digits",
    "x label=short": "'short' must hold one entry per example of 'x', 40 of them, got 39",
    "x label=age": r"float64 of shape \(40,\) with fractions \(numbers\? use continuous=",
    "x label=one_hot": r"one-hot\? save label.argmax\(axis=1\)",
    "x label=column": r"save label\[:, 0\]",
    "x label=names": r"got <U1 values \(numpy.unique\(..., return_inverse=True\)\[1\] numbers strings\)",
    "x label=negative": r"'negative' must be classes from 0 on \(numpy.unique.*got -2 at row 5",
    "x label=codes": "'codes' must be classes below 40 .*return_inverse=True.*got 1000000000 at row 5",
    "x label=late": rf"'late' must be in \[0, 3\), the classes of the training part, got 3 at row {LATE}",
    "x label=zeros": "'zeros' must name two classes at least",
    "x continuous=holes": "'holes' must be finite numbers, below 3.4e38, got nan at row 3",
    "x continuous=huge": r"got 1e\+300 at row 3",
    "x continuous=zeros": "'zeros' must vary, got 0 in every row, in the training part",
    "x continuous=wide": r"'wide' must be real numbers of shape \[N\] or \[N, D\], got float64 of shape \(40, 2, 2\)",
    "x image=top_half": "must name a mask or an array, got 'top_half', which is both",
    "x image=left_halve": "or a mask, one of .*left_half.*, got image=left_halve",
    "x image=all_seen": "'all_seen' must hide something of every example, got nothing hidden at row 0",
    "x image=one_seen": "nothing hidden at row 6",
    "x image=turned": "'turned' must be boolean, True where x is observed, of a shape among",
    "x image=turned image=all_seen": "--condition must name one image at most",
    "rows image=left_half": "mask must be random_pixels or given",
}


@pytest.mark.parametrize(("named", "message"), REFUSED.items(), ids=REFUSED.keys())
def test_what_is_refused(named, message, file):
    x, *condition = named.split(" ")
    with pytest.raises(ValueError, match=message):
        load(file, x, *condition)


def test_x_may_be_left_out_where_one_array_alone_will_do(tmp_path):
    assert load(of(tmp_path, digit=THIRDS, rows=ARRAYS["rows"]), None).event_shape == (3,)
    with pytest.raises(ValueError, match=r"--x must be given unless .*, got \['rows', 'x'\] among \['rows', 'x'\]"):
        load(of(tmp_path, rows=ARRAYS["rows"], x=ARRAYS["x"]), None)


def test_options_that_do_not_suit_x_are_refused(file):
    with pytest.raises(ValueError, match=r"'rows' must be uint8 or in \[0, 1\] for --likelihood bernoulli, got values"):
        load(file, "rows", likelihood="bernoulli")
    with pytest.raises(ValueError, match=r"--std must be left out with --likelihood bernoulli, got 1\.0"):
        load(file, "x", likelihood="bernoulli", std=1.0)
    with pytest.raises(ValueError, match="--validation and --test"):
        load(file, "rows", validation=0.5, test=0.5)


LIKELIHOODS = {  # array, its likelihood, and the reason
    "uint8": (ARRAYS["x"], cvae.Bernoulli, "uint8 pixels"),
    "grey": (GREY, cvae.Bernoulli, "read as probabilities"),
    "rounded": (np.where(GREY > 0.9, np.float32(1.0000001), GREY), cvae.Bernoulli, "1.00000012, read as probabilities"),
    "a thousandth": (GREY / 1000, cvae.Normal, "which do not fill"),
    "beyond": (GREY * 3 - 1, cvae.Normal, "values from -"),
    "table": (ARRAYS["rows"], cvae.Normal, "columns of a table"),
    "bits": (ARRAYS["rows"] > 0, cvae.Bernoulli, "black and white"),
}


@pytest.mark.parametrize(("x", "kind", "reason"), LIKELIHOODS.values(), ids=LIKELIHOODS.keys())
def test_the_likelihood_that_suits_and_why(x, kind, reason, tmp_path):
    data = load(of(tmp_path, x=x), None)
    assert type(data.likelihood) is kind
    assert any(note.startswith("--likelihood ") and reason in note for note in data.notes), data.notes


def test_a_table_of_integers_is_numbers_and_not_pixels(tmp_path):
    x = RNG.integers(0, 256, (N, 2), dtype=np.uint8)
    data = load(of(tmp_path, x=x), "x")
    assert data.train[0].dtype == np.float64
    rows = cvae.data.split_rows(N, 0).train
    np.testing.assert_allclose(data.likelihood.location, x[rows].mean(axis=0))
    assert any("uint8 values are numbers" in note for note in data.notes)


@pytest.mark.parametrize("shape", [(N, 5), (N, 4, 3)])
def test_uint8_of_0_and_1_is_black_and_white(shape, tmp_path):
    data = load(of(tmp_path, x=(RNG.random(shape) < 0.5).astype(np.uint8)), "x")
    assert data.train[0].dtype == bool
    assert data.likelihood == cvae.Bernoulli()
    assert "'x' holds 0 and 1 only, and is read as black and white" in data.notes


def test_location_and_scale_are_those_of_the_training_part_per_channel(tmp_path):
    x = RNG.standard_normal((N, 32, 2)) * (706, 0.35) + (5e4, 0)
    x[cvae.data.split_rows(N, 0).test] += 1e6
    data = load(of(tmp_path, x=x), "x")
    assert (data.event_shape, data.what) == ((32, 2), "series")
    train = data.train[0]
    np.testing.assert_allclose(data.likelihood.location, train.mean(axis=(0, 1)))
    np.testing.assert_allclose(data.likelihood.scale, train.std(axis=(0, 1)))
    assert any("2 channels (images? save x[..., None])" in note for note in data.notes)


def test_constant_and_discrete_columns_are_named(tmp_path):
    x = np.stack([np.full(N, 7.0), RNG.standard_normal(N), THIRDS], axis=1)
    told = np.stack([np.ones(N), RNG.standard_normal(N)], axis=1)
    data = load(of(tmp_path, x=x, told=told), "x", "continuous=told")
    assert [scale == 0 for scale in data.likelihood.scale] == [True, False, False]
    text = "\n".join(data.notes)
    assert "worth 0 nats: column 0 of 'x'" in text
    assert "nats of column 2 of 'x', whole numbers" in text
    assert "no condition therefore: column 0 of 'told'" in text


def test_labels_and_numbers_in_other_dtypes_are_taken(tmp_path):
    path = of(
        tmp_path, x=ARRAYS["x"], flag=THIRDS > 0, whole=THIRDS.astype(float), gap=np.array([1, 2, 9])[THIRDS],
        bits=np.eye(3)[THIRDS] > 0,
    )  # fmt: skip
    data = load(path, "x", "label=flag", "label=whole", "label=gap", "continuous=bits")
    _, c = data.train
    assert [part.num_classes for part in data.condition.parts[:3]] == [2, 3, 10]
    assert {c[name].dtype.name for name in ("flag", "whole", "gap")} == {"int32"}
    assert (c["bits"].dtype, c["bits"].shape) == (np.float32, (32, 3))
    text = "\n".join(data.notes)
    assert "'whole' holds whole floats" in text
    assert "no training row is of class 0, 3, 4, 5, 6, 7, 8 of 'gap'" in text


def test_images_are_conditioned_on_by_a_mask_or_an_array(tmp_path, file):
    named = load(file, "x", "image=bottom_half")
    assert named.condition == cvae.Image((4, 3, 1), "bottom_half")
    assert set(named.test[1]) == {"image"}
    drawn = load(file, "x", "image=random_pixels")
    assert drawn.test[1]["observed"].shape == (4, 4, 3, 1)
    seen = np.arange(3) < 2
    path = of(tmp_path, x=GREY * 50, seen=np.broadcast_to(seen, (6, 3)), digit=THIRDS)
    data = load(path, "x", "label=digit", "image=seen")
    image = data.condition.parts[1]
    assert (image.mask, image.location, image.scale) == ("given", data.likelihood.location, data.likelihood.scale)
    assert (data.test[1]["observed"][..., 0] == seen).all()
    np.testing.assert_array_equal(data.test[1]["image"], data.test[0])


def test_the_name_of_a_run_has_no_characters_that_a_path_cannot_have(tmp_path):
    np.savez(tmp_path / "run[1] a.npz", x=ARRAYS["rows"])
    assert load(tmp_path / "run[1] a.npz", None).name == "run_1__a"
    with pytest.raises(ValueError, match="no such file"):
        load(Path("absent.npz"), None)


def test_missing_numbers_are_left_out_of_the_density_and_are_not_hidden_ones(tmp_path):
    x = np.where(RNG.random((N, 3)) < 0.2, np.nan, RNG.standard_normal((N, 3)) * 3 + 5)
    data = load(of(tmp_path, x=x), "x")
    assert isinstance(data.likelihood, cvae.Missing)
    np.testing.assert_allclose(data.likelihood.base.location, np.nanmean(data.train[0], axis=0))
    assert any(f"{np.isnan(x).sum()} of 120 numbers of 'x' are missing (NaN)" in note for note in data.notes)
    with pytest.raises(ValueError, match=r"'x' must have no missing numbers \(NaN\) with image=MASK"):
        load(of(tmp_path, x=x), "x", "image=random_pixels")


@pytest.mark.parametrize(
    ("family", "kind"),
    [("categorical_pixels", cvae.CategoricalPixels), ("discretized_logistic", cvae.DiscretizedLogistic)],
)
def test_likelihoods_of_8_bits_are_of_uint8_pixels(family, kind, tmp_path, file):
    assert load(file, "x", likelihood=family).likelihood == kind()
    with pytest.raises(ValueError, match=f"'x' must be uint8 for --likelihood {family}, got float64 values"):
        load(of(tmp_path, x=GREY), "x", likelihood=family)


def test_an_npy_file_is_one_array(tmp_path):
    np.save(tmp_path / "pixels.npy", ARRAYS["x"])
    data = load(tmp_path / "pixels.npy", None, "image=left_half")
    assert (data.name, data.event_shape) == ("pixels", (4, 3, 1))
    rows = cvae.data.split_rows(N, 0)
    np.testing.assert_array_equal(data.test[0][..., 0], ARRAYS["x"][rows.test])
    with pytest.raises(ValueError, match=r"--condition must be image=MASK for an .npy file.*got label=digit"):
        load(tmp_path / "pixels.npy", None, "label=digit")


def folder_of_images(tmp_path, table):
    """Forty images, and a labels.csv of this text."""
    folder = tmp_path / "cells"
    folder.mkdir()
    for number, pixels in enumerate(ARRAYS["x"]):
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    (folder / "labels.csv").write_text(table)
    return folder


def test_a_folder_of_images_has_conditions_by_the_names_of_columns(tmp_path):
    lines = [f"{k:02d}.png,{'abc'[k % 3]},{k % 2},{k / 7}" for k in reversed(range(N))]
    folder = folder_of_images(tmp_path, "\n".join(["file,species,stage,age", *lines]))
    data = load(folder, None, "species", "label=stage", "age")
    assert (data.name, data.event_shape) == ("cells", (4, 3, 1))
    assert [type(part) for part in data.condition.parts] == [cvae.Label, cvae.Label, cvae.Continuous]
    assert [part.categories for part in data.condition.parts[:2]] == [("a", "b", "c"), ("0", "1")]
    rows = np.arange(N)[::-1][cvae.data.split_rows(N, 0).test]
    np.testing.assert_array_equal(data.test[0][..., 0], ARRAYS["x"][rows])
    np.testing.assert_array_equal(data.test[1]["species"], rows % 3)
    np.testing.assert_allclose(data.test[1]["age"][:, 0], rows / 7)
    assert "labels 'species' are numbered: 0 is a, 1 is b, 2 is c" in data.notes
    with pytest.raises(ValueError, match=r"--condition must name a column of labels.csv, one of .*, got 'sex'"):
        load(folder, None, "sex")


def test_options_of_tables_are_refused_for_arrays(file):
    for name, value in {"optional": ("x",), "exposure": "x", "column": ("x=real",), "schema": Path("s.json")}.items():
        with pytest.raises(ValueError, match=f"--{name} must be left out for arrays"):
            load(file, "x", **{name: value})

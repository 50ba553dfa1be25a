"""Handwriting from typed characters: what is drawn, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from experiments import write
from tests.commands import assert_refused, call, run, untrained


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run folder."""
    return untrained(tmp_path_factory.mktemp("write") / "run")


def test_write_draws_one_hand_a_row(finished, tmp_path):
    out = write.main(write.Settings("2026", run=finished, hands=3, out=tmp_path / "page.png"))
    page = np.asarray(Image.open(out))
    assert page.shape == (3 * 112, 4 * 112)
    two, nought, again, _ = np.split(page[:112], 4, axis=1)
    # The same digit in the same hand is the same picture, but for the smoothing at the edges.
    np.testing.assert_array_equal(two[:, 28:-28], again[:, 28:-28])
    assert np.any(two[:, 28:-28] != nought[:, 28:-28])
    assert np.any(page[:112] != page[112:224])


def test_write_without_spread_has_one_hand(finished, tmp_path):
    out = write.main(write.Settings("7", run=finished, hands=2, temperature=0.0, out=tmp_path / "page.png"))
    page = np.asarray(Image.open(out))
    np.testing.assert_array_equal(page[28:84], page[140:196])


BAD_TEXT = {
    "a letter": (["20a6"], "text must hold only what the model was trained on, 0123456789, got 'a' in '20a6'"),
    "nothing": ([""], "text must hold at least one character"),
    "no hands": (["1", "--hands", "0"], "--hands must be a whole number of at least 1, got 0"),
    "cold": (["1", "--temperature", "-1"], "--temperature must be a finite number of at least 0, got -1.0"),
    "seed": (["1", "--seed", "-1"], "--seed must be a whole number of at least 0, got -1"),
    "not a png": (["1", "--out", "page.pdf"], "--out must end in .png, got 'page.pdf'"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD_TEXT.values(), ids=BAD_TEXT.keys())
def test_write_refuses(arguments, message, finished):
    assert_refused(call(write, *arguments, "--run", str(finished)), message)


def test_write_without_a_run_says_how_to_make_one(tmp_path):
    result = run("experiments.write", "2026", cwd=tmp_path)
    assert_refused(result, "make one with `python -m experiments.mnist_label`")
    assert "runs/mnist_label" in result.stderr


def test_kmnist_is_typed_in_hiragana():
    np.testing.assert_array_equal(write.labels_of("はつお", "kmnist"), [5, 3, 0])
    with pytest.raises(ValueError, match="got 'fashion_mnist'"):
        write.labels_of("1", "fashion_mnist")

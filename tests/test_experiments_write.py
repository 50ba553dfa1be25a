"""Handwriting from typed characters: what is drawn, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from experiments import write
from tests.commands import assert_refused, call, untrained


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run folder."""
    return untrained(tmp_path_factory.mktemp("write") / "run")


def page(run, out, text, **options):
    """The page that is written, dark ink being large, without its margins; and the height of a row."""
    write.execute(write.Settings(text, run=run, out=out, **options))
    ink = 255 - np.asarray(Image.open(out)).astype(int)
    scale, gap = 14, 2  # 8 pixels are enlarged to 112
    return ink[gap * scale : -gap * scale, gap * scale : -gap * scale], 8 * scale, gap * scale


def test_a_row_has_one_style_and_rows_are_apart(finished, tmp_path):
    ink, side, gap = page(finished, tmp_path / "page.png", "2026", styles=3)
    assert ink.shape == (3 * side + 2 * gap, 4 * side)
    first, second = ink[:side], ink[side + gap : 2 * side + gap]
    two, nought, again, _ = np.split(first, 4, axis=1)
    # The same digit in the same style is the same image, but for the smoothing at the edges.
    inner = slice(side // 4, -side // 4)
    np.testing.assert_array_equal(two[:, inner], again[:, inner])
    assert np.any(two[:, inner] != nought[:, inner])
    assert np.any(first != second)
    assert ink[side + gap // 2].max() < 10  # white between the rows


def test_without_spread_there_is_one_style(finished, tmp_path):
    ink, side, gap = page(finished, tmp_path / "page.png", "7", styles=2, temperature=0.0)
    np.testing.assert_array_equal(ink[side // 4 : -side // 4 - side - gap], ink[side + gap + side // 4 : -side // 4])


BAD = {
    "a letter": (["20a6"], "text must hold only characters that the model was trained on, 0123456789, got 'a' in"),
    "nothing": ([""], "text must hold at least one character"),
    "not a png": (["1", "--out", "page.pdf"], "--out must end in .png, got 'page.pdf'"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_bad_options_are_refused(arguments, message, finished):
    assert_refused(call(write, *arguments, "--run", str(finished)), message)


def test_kmnist_is_typed_in_hiragana():
    np.testing.assert_array_equal(write.labels_of("はつお", "kmnist"), [5, 3, 0])
    with pytest.raises(ValueError, match="got 'fashion_mnist'"):
        write.labels_of("1", "fashion_mnist")

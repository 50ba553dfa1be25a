"""Figures: arrays in, files out, every class visible."""

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from PIL import Image

from cvae import plotting

RNG = np.random.default_rng(0)


def test_tile_puts_every_picture_in_its_place():
    images = RNG.random((2, 3, 4, 5, 1)).astype(np.float32)
    page = plotting.tile(images, gap=2)
    assert page.shape == (2 * 4 + 2, 3 * 5 + 2 * 2)
    for row in range(2):
        for column in range(3):
            top, left = row * 6, column * 7
            np.testing.assert_array_equal(page[top : top + 4, left : left + 5], images[row, column, ..., 0])
    assert not page[4:6].any()
    np.testing.assert_array_equal(plotting.tile(images, gap=0)[:4, 5:10], images[0, 1, ..., 0])


def test_grid_shows_ink_dark_and_names_its_rows(tmp_path):
    figure = plotting.grid(RNG.random((2, 3, 8, 8, 1)), "a title", row_labels=["up", "down"], x_label="across")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["up", "down"]
    (image,) = axes.images
    assert image.cmap(0.0)[0] > image.cmap(1.0)[0]
    assert image.get_clim() == (0, 1)
    figure.savefig(tmp_path / "grid.png")
    assert Image.open(tmp_path / "grid.png").size[0] > 100


@pytest.mark.parametrize("classes", [1, 5, 10])
def test_latents_show_every_point_and_every_class(classes):
    labels = np.arange(200) % classes
    means = {"one": RNG.normal(size=(200, 2)), "other": RNG.normal(size=(200, 2))}
    figure = plotting.latents(means, {"one": (0, 3), "other": (1,)}, labels, "one", "a title")
    clouds = [
        collection.get_offsets()
        for axes in figure.get_axes()
        for collection in axes.collections
        if isinstance(collection, PathCollection)
    ]
    np.testing.assert_array_equal(clouds[0], means["one"])
    np.testing.assert_array_equal(clouds[1], means["other"])
    for k in range(classes):
        np.testing.assert_array_equal(clouds[2 + k], means["one"][labels == k])
    assert len(clouds) == 2 + classes
    above = figure.get_axes()[:2]
    assert [axes.get_xlabel() for axes in above] == ["$z_{1}$", "$z_{2}$"]
    assert above[0].get_ylabel() == "$z_{4}$"
    assert "noise" in above[1].get_ylabel()
    # Without colour: the digits themselves are written among the points.
    assert {text.get_text() for text in above[0].texts} == {str(k) for k in range(classes)}


@pytest.mark.parametrize("epochs", [1, 2, 40])
def test_curves_draw_both_splits_of_every_term(epochs):
    def terms():
        return {name: RNG.random(epochs) for name in ("loss", "log_likelihood", "kl")}

    histories = {"A": {"train": terms(), "validation": terms()}, "B": {"train": terms(), "validation": terms()}}
    figure = plotting.curves(histories, "a title")
    for axes, term in zip(figure.axes, ("loss", "log_likelihood", "kl"), strict=True):
        drawn = [line.get_ydata() for line in axes.lines]
        expected = [histories[model][split][term] for model in "AB" for split in ("train", "validation")]
        for line, values in zip(drawn, expected, strict=True):
            np.testing.assert_array_equal(line, values)
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == ["A, train", "A, validation", "B, train", "B, validation"]


def test_written_ink_is_dark_on_white(tmp_path):
    images = np.zeros((1, 2, 8, 8, 1))
    images[0, 1] = 1
    plotting.write_ink(tmp_path / "page.png", images)
    page = np.asarray(Image.open(tmp_path / "page.png"))
    assert page.shape == (112, 224)
    assert page[56, 30] == 255
    assert page[56, 190] == 0

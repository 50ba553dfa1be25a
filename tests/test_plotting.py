"""Figures: arrays in, files out, every class visible."""

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from PIL import Image

from cvae import charts, plotting

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


def inside_and_apart(figure, texts):
    """Whether every text lies on the page, and no two of them overlap."""
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text).padded(-0.5) for text in texts]  # without its leader
    page = figure.bbox.padded(1)
    inside = all(page.contains(*box.min) and page.contains(*box.max) for box in boxes)
    return inside and not any(box.overlaps(other) for k, box in enumerate(boxes) for other in boxes[:k])


def labels(axes):
    return [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.title, axes.xaxis.label, axes.yaxis.label]


@pytest.mark.parametrize(("rows", "draws"), [(1, 1), (3, 10)])
def test_completions_show_every_picture_under_its_heading(rows, draws):
    truth = 0.9 * RNG.random((rows, 6, 5, 1))
    hidden = RNG.random((rows, 6, 5, 1)) < 0.5
    observed = np.where(hidden, 0, truth)
    drawn = RNG.random((rows, draws, 6, 5, 1))
    figure = plotting.completions(observed, hidden, drawn, truth, "a title")
    axes, bar = figure.axes
    headings = {label.get_text(): place for place, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)}
    assert list(headings) == ["observed", *map(str, range(1, draws + 1)), "mean", "spread", "truth"]
    (image,) = axes.images
    canvas = np.asarray(image.get_array())

    def shown(heading, row):
        left = round(headings[heading] - 2)
        return canvas[row * 7 : row * 7 + 6, left : left + 5]

    for row in range(rows):
        for heading, ink in [(str(k + 1), drawn[row, k]) for k in range(draws)] + [
            ("mean", drawn[row].mean(axis=0)),
            ("truth", truth[row]),
        ]:
            np.testing.assert_allclose(shown(heading, row), np.repeat(1 - ink, 3, axis=-1), atol=1e-6)
        seen = shown("observed", row)
        np.testing.assert_allclose(seen[hidden[row, ..., 0]], np.tile(plotting.HIDDEN, (hidden[row].sum(), 1)))
        np.testing.assert_allclose(seen[~hidden[row, ..., 0]], np.repeat(1 - truth[row][~hidden[row]][:, None], 3, 1))
        # The more spread, the darker, on the scale of the colour bar.
        spread = drawn[row].std(axis=0)[..., 0]
        if draws > 1:
            assert bar.get_ylim() == pytest.approx((0, drawn.std(axis=1).max()))
            darkness = -shown("spread", row).sum(axis=-1)
            assert (np.diff(darkness.ravel()[np.argsort(spread.ravel())]) >= 0).all()
    assert inside_and_apart(figure, [text for text in labels(axes) if text.get_text()])


def test_attribute_grid_marks_what_was_asked_for():
    images = RNG.random((3, 4, 6, 5, 1))
    figure = plotting.attribute_grid(images, [1.5, 3, 4.25], np.array([-30, 0, 20, 40]), "down (px)", "across (°)", "T")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1.5", "3", "4.25"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["\N{MINUS SIGN}30", "0", "20", "40"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("across (°)", "down (px)")
    np.testing.assert_allclose(axes.get_xticks(), [2, 8, 14, 20])
    np.testing.assert_allclose(axes.get_yticks(), [2.5, 9.5, 16.5])
    np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), plotting.tile(images))


def test_asked_against_measured_prints_the_correlation_of_what_could_be_measured():
    asked = RNG.normal(size=(300, 2)) * [1, 20]
    measured = asked + RNG.normal(size=(300, 2)) * [0.5, 1]
    measured[7, 0] = np.nan
    figure = charts.asked_against_measured(asked, measured, ["thickness", "slant"], ["px", "°"], "a title")
    for k, axes in enumerate(figure.axes):
        valid = np.isfinite(measured[:, k])
        cloud = axes.collections[0].get_offsets()
        np.testing.assert_allclose(cloud, np.stack([asked[valid, k], measured[valid, k]], axis=1))
        (identity,) = axes.lines
        np.testing.assert_array_equal(identity.get_xdata(), identity.get_ydata())
        assert axes.get_xlim() == axes.get_ylim()
        (note,) = axes.texts
        r = np.corrcoef(asked[valid, k], measured[valid, k])[0, 1]
        error = (1 - r**2) / np.sqrt(valid.sum() - 1)
        assert note.get_text().splitlines()[0] == f"r = {r:.4f} ± {error:.4f}"
        assert ("1 of 300 not measurable" in note.get_text()) == (k == 0)
    assert [axes.get_xlabel() for axes in figure.axes] == ["asked (px)", "asked (°)"]
    assert inside_and_apart(
        figure, [t for axes in figure.axes for t in [axes.title, axes.xaxis.label, axes.yaxis.label]]
    )


def saturating(sizes=(1, 2, 4, 8, 16, 32, 64), kinds=3):
    """Lines as experiments give them: once latents are left unused, points all but coincide."""
    sizes = np.array(sizes)
    points = {}
    for k in range(kinds):
        rate = (25 - k) * (1 - np.exp(-sizes / 5))
        error = np.full(len(sizes), 0.2)
        points[f"kind {k}"] = {
            "rate": rate,
            "distortion": 70 - k + 100 * np.exp(-sizes / 4),
            "rate_error": error,
            "distortion_error": 2 * error,
            "latent_size": sizes,
        }
    return points


@pytest.mark.parametrize("points", [saturating(), saturating((16,), 1)], ids=["lines", "a point"])
def test_rate_distortion_joins_equal_elbos_and_marks_every_point(points):
    figure = charts.rate_distortion(points, "a title")
    (axes,) = figure.axes
    handles, names = axes.get_legend_handles_labels()
    for name, line in points.items():
        drawn = handles[names.index(name)].lines[0]
        np.testing.assert_array_equal(drawn.get_xdata(), line["rate"])
        np.testing.assert_array_equal(drawn.get_ydata(), line["distortion"])
    diagonals = [line for line in axes.lines if to_rgb(line.get_color()) == to_rgb("0.75")]
    totals = [float(np.mean(line.get_xdata() + line.get_ydata())) for line in diagonals]
    for line, total in zip(diagonals, totals, strict=True):
        np.testing.assert_allclose(line.get_xdata() + line.get_ydata(), total)
    assert len(totals) > 3
    written = [text for text in axes.texts if text.get_text()]
    sizes = [text for text in written if text.arrow_patch is not None]
    assert [float(text.get_text()) for text in written if text not in sizes] == pytest.approx(totals)
    expected = [f"{size}" for line in points.values() for size in line["latent_size"]]
    assert [text.get_text() for text in sizes] == expected
    np.testing.assert_allclose(sizes[-1].xy, (line_of(points, "rate")[-1], line_of(points, "distortion")[-1]))
    assert inside_and_apart(figure, sizes)


def line_of(points, term):
    return list(points.values())[-1][term]


def test_against_latent_size_has_the_sizes_as_ticks():
    lines = {
        "one": {"latent_size": np.array([1, 4, 16]), "mean": RNG.random(3), "spread": RNG.random(3)},
        "other": {"latent_size": np.array([2, 4]), "mean": RNG.random(2), "spread": RNG.random(2)},
    }
    figure = charts.against_latent_size(lines, "ELBO (nats)", "a title")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "4", "16"]
    np.testing.assert_array_equal(axes.get_xticks(), [1, 2, 4, 16])
    assert axes.get_xscale() == "log"
    handles, names = axes.get_legend_handles_labels()
    assert names == ["one", "other"]
    assert handles[0].lines[0].get_marker() != handles[1].lines[0].get_marker()
    for handle, line in zip(handles, lines.values(), strict=True):
        np.testing.assert_array_equal(handle.lines[0].get_ydata(), line["mean"])
        ends = np.array([segment[:, 1] for segment in handle.lines[2][0].get_segments()])
        np.testing.assert_allclose(
            ends, np.stack([line["mean"] - line["spread"], line["mean"] + line["spread"]], axis=1)
        )


def test_calibration_draws_filled_bins_and_prints_the_error():
    confidence, accuracy = np.array([np.nan, 0.3, 0.6, 0.9]), np.array([np.nan, 0.2, 0.6, 1.0])
    figure = charts.calibration(confidence, accuracy, np.array([0, 10, 30, 60]), "a title")
    above, below = figure.axes
    bars = [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in above.patches]
    np.testing.assert_allclose(bars, [(0.375, 0.2), (0.625, 0.6), (0.875, 1.0)])
    np.testing.assert_allclose([bar.get_height() for bar in below.patches], [10, 30, 60])
    (note,) = above.texts
    assert note.get_text().endswith(f" {0.1 * 0.1 + 0.6 * 0.1:.4f}")
    assert above.get_xlim() == below.get_xlim() == (0, 1)

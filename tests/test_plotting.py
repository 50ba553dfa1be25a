"""Figures: arrays in, files out, and everything on the page."""

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from PIL import Image
from scipy.stats import ks_2samp

from cvae import plotting
from cvae.plotting import images as plotting_images
from cvae.plotting import style

RNG = np.random.default_rng(0)
MINUS = "\N{MINUS SIGN}"


def inside_and_apart(figure, texts):
    """Whether every text lies on the page, and no two of them overlap."""
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text).padded(-0.5) for text in texts if text.get_text()]  # without its leader
    page = figure.bbox.padded(1)
    inside = all(page.contains(*box.min) and page.contains(*box.max) for box in boxes)
    return inside and not any(box.overlaps(other) for k, box in enumerate(boxes) for other in boxes[:k])


def texts(figure):
    """The title of a figure, and the titles, axis labels and legends of its panels."""
    legends = [text for legend in figure.legends for text in [*legend.get_texts(), legend.get_title()]]
    panels = [axes for axes in figure.axes if axes.get_visible()]
    labels = [text for axes in panels for text in (axes.title, axes.xaxis.label, axes.yaxis.label)]
    return [figure._suptitle, *legends, *labels]


def clouds(figure):
    """The coordinates of every scatter plot."""
    collections = [collection for axes in figure.get_axes() for collection in axes.collections]
    return [np.asarray(c.get_offsets()) for c in collections if isinstance(c, PathCollection)]


# Files


def test_save_writes_a_small_png_and_a_pdf_and_equal_figures_are_equal_files(tmp_path):
    images = RNG.random((2, 3, 8, 8, 1))
    first = plotting.save(plotting.grid(images, "a title"), tmp_path / "new" / "run.v2.png")
    assert [path.name for path in first] == ["run.v2.png", "run.v2.pdf"]
    with Image.open(first[0]) as page:
        assert page.mode == "P"
    assert first[1].read_bytes().startswith(b"%PDF")
    second = plotting.save(plotting.grid(images, "a title"), tmp_path / "again")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_titles_wrap_to_the_width_and_add_to_the_height():
    short, long = (style.new_figure(4, 3, "word " * count) for count in (3, 30))
    assert "\n" in long._suptitle.get_text()
    assert long.get_figheight() > short.get_figheight() == 3
    assert inside_and_apart(long, [long._suptitle])


# Images


def test_tile_puts_every_image_in_its_place():
    images = RNG.random((2, 3, 4, 5, 3)).astype(np.float32)
    page = plotting.tile(images, gap=(2, 1), fill=0.25)
    assert page.shape == (2 * 4 + 2, 3 * 5 + 2, 3)
    for row in range(2):
        for column in range(3):
            top, left = row * 6, column * 6
            np.testing.assert_array_equal(page[top : top + 4, left : left + 5], images[row, column])
    assert (page[4:6] == 0.25).all()
    np.testing.assert_array_equal(plotting.tile(images, gap=0)[:4, 5:10], images[0, 1])
    with pytest.raises(ValueError, match=r"images must have shape \[rows, columns, H, W, channels\], got \(2, 4, 5\)"):
        plotting.tile(np.zeros((2, 4, 5)))


@pytest.mark.parametrize(("channels", "ink"), [(1, True), (1, False), (3, True)])
def test_grid_draws_ink_dark_and_colours_as_they_are(channels, ink):
    images = RNG.random((2, 3, 8, 6, channels))
    figure = plotting.grid(images, "T", row_labels=["up", "down"], axis_labels=("across", ""), ink=ink)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["up", "down"]
    light = 1 - images if ink and channels == 1 else images
    shown = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(shown[9:, 7:13], np.broadcast_to(light[1, 1], (8, 6, 3)), atol=1e-6)
    assert inside_and_apart(figure, [*texts(figure), *axes.get_yticklabels()])


def test_grid_reads_uint8_as_255ths():
    page = np.asarray(plotting.grid(np.full((1, 1, 2, 2, 1), 51, np.uint8), "T").axes[0].images[0].get_array())
    np.testing.assert_allclose(page, 0.8, rtol=1e-6)


@pytest.mark.parametrize(("side", "gap", "scale"), [(8, 2, 14), (28, 3, 4)])
def test_write_draws_dark_ink_and_leaves_a_gap_between_rows(tmp_path, side, gap, scale):
    images = np.zeros((2, 3, side, side, 1))
    images[:, 1] = 1.5
    plotting.write(tmp_path / "page.png", images)
    with Image.open(tmp_path / "page.png") as image:
        page = np.asarray(image)
    assert page.shape == ((2 * side + 3 * gap) * scale, (3 * side + 2 * gap) * scale)
    middle = page[:, page.shape[1] // 2]
    top, half = (gap + side // 2) * scale, page.shape[0] // 2
    assert (middle[top], middle[half], middle[-1]) == (0, 255, 255)
    assert page[top, gap * scale + scale] == 255


@pytest.mark.parametrize(("rows", "draws", "prediction"), [(1, 1, False), (3, 10, True)])
def test_completions_show_every_image_under_its_heading(rows, draws, prediction):
    truth = 0.9 * RNG.random((rows, 6, 5, 1))
    hidden = RNG.random((rows, 6, 5, 1)) < 0.5
    drawn, guess = RNG.random((rows, draws, 6, 5, 1)), RNG.random((rows, 6, 5, 1))
    figure = plotting.completions(
        np.where(hidden, 0, truth), hidden, drawn, truth, "T", prediction=guess if prediction else None
    )
    axes, bar = figure.axes
    headings = {label.get_text(): place for place, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)}
    first = ["observed", "prediction"] if prediction else ["observed"]
    assert list(headings) == [*first, *map(str, range(1, draws + 1)), "mean", "std. dev.", "truth"]
    canvas = np.asarray(axes.images[0].get_array())

    def shown(heading, row):
        left = round(headings[heading] - 2)
        return canvas[row * 7 : row * 7 + 6, left : left + 5]

    for row in range(rows):
        expected = {str(k + 1): drawn[row, k] for k in range(draws)}
        expected |= {"mean": drawn[row].mean(axis=0), "truth": truth[row]}
        if prediction:
            expected["prediction"] = guess[row]
        for heading, ink in expected.items():
            np.testing.assert_allclose(shown(heading, row), np.repeat(1 - ink, 3, axis=-1), atol=1e-6)
        seen = shown("observed", row)
        tint = np.tile(plotting_images.HIDDEN, (hidden[row].sum(), 1))
        np.testing.assert_allclose(seen[hidden[row, ..., 0]], tint, rtol=1e-6)
        np.testing.assert_allclose(
            seen[~hidden[row, ..., 0]], np.repeat(1 - truth[row][~hidden[row]][:, None], 3, 1), rtol=1e-5
        )
        if draws > 1:  # a larger deviation is darker, on the scale of the colour bar
            deviation = drawn[row].std(axis=0)[..., 0]
            assert bar.get_ylim() == pytest.approx((0, drawn.std(axis=1).max()))
            darkness = -shown("std. dev.", row).sum(axis=-1)
            assert (np.diff(darkness.ravel()[np.argsort(deviation.ravel())]) >= 0).all()
    assert inside_and_apart(figure, [*texts(figure), *axes.get_xticklabels()])


def test_labels_of_a_grid_are_at_its_rows_and_columns():
    images, down, across = RNG.random((3, 4, 6, 5, 1)), ["1.5", "3", "4.25"], [f"{MINUS}30", "0", "20", "40"]
    labels = {"row_labels": down, "column_labels": across, "axis_labels": ("across (°)", "down (px)")}
    (axes,) = plotting.grid(images, "T", **labels).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == down
    assert [label.get_text() for label in axes.get_xticklabels()] == across
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("across (°)", "down (px)")
    np.testing.assert_allclose(axes.get_xticks(), [2, 8, 14, 20])
    np.testing.assert_allclose(axes.get_yticks(), [2.5, 9.5, 16.5])


# Latents


@pytest.mark.parametrize("classes", [1, 5, 10])
def test_latents_show_every_sample_and_every_class(classes):
    labels = np.arange(200) % classes
    samples = {"one": RNG.normal(size=(200, 5)), "other": RNG.normal(size=(200, 2))}
    figure = plotting.latents(samples, {"one": (0, 3), "other": (1,)}, labels, "one", "a title")
    drawn = clouds(figure)
    np.testing.assert_array_equal(drawn[0], samples["one"][:, [0, 3]])
    np.testing.assert_array_equal(drawn[1][:, 0], samples["other"][:, 1])
    for k in range(classes):
        np.testing.assert_array_equal(drawn[2 + k], samples["one"][labels == k][:, [0, 3]])
    assert len(drawn) == 2 + classes
    above = figure.get_axes()[:2]
    assert all("samples of q(z | x, c)" in axes.get_title() for axes in above)
    assert [axes.get_xlabel() for axes in above] == ["$z_{1}$", "$z_{2}$"]
    assert above[0].get_ylabel() == "$z_{4}$"
    assert "noise" in above[1].get_ylabel()
    # Without colour: class numbers are written among the points.
    assert {text.get_text() for text in above[0].texts} == {str(k) for k in range(classes)}
    assert inside_and_apart(figure, texts(figure))


def test_the_latents_of_mnist_are_a_small_file(tmp_path):
    z, labels = RNG.normal(size=(10_000, 2)), RNG.integers(0, 10, 10_000)
    figure = plotting.latents({"CVAE": z, "VAE": z}, {"CVAE": (0, 1), "VAE": (0, 1)}, labels, "CVAE", "a title")
    png, pdf = plotting.save(figure, tmp_path / "latents")
    assert png.stat().st_size < 400_000
    assert pdf.stat().st_size < 1_200_000


def test_colours_of_a_legend_beside_a_colour_bar_are_those_of_the_figure(tmp_path):
    """The image of 256 colours has each class's own colour, nearer to it than any other class's is."""
    points, words = RNG.normal(size=(3000, 2)), ["a", "b", "c", "d", "e"]
    conditions = {"age": (points[:, 0], ()), "kind": (np.arange(3000.0) % 5, words)}
    figure = plotting.latent_plane(points, conditions, ("one", "two"), "a title")
    legend = next(axes.get_legend() for axes in figure.axes if axes.get_legend())
    colours = 255 * np.array([handle.get_facecolor()[0, :3] for handle in legend.legend_handles])
    png, _ = plotting.save(figure, tmp_path / "plane")
    pixels = np.unique(np.asarray(Image.open(png).convert("RGB")).reshape(-1, 3), axis=0)
    nearest = np.linalg.norm(colours[:, None] - pixels, axis=-1).min(axis=1)
    apart = np.linalg.norm(colours[:, None] - colours, axis=-1) + np.diag(np.full(5, np.inf))
    assert np.all(nearest < apart.min(axis=1) / 4), nearest


def test_the_latent_plane_is_coloured_by_each_condition():
    points, codes = RNG.normal(size=(90, 2)), np.arange(90.0) % 12
    words = [f"class {k}" for k in range(12)]
    holed = np.where(np.arange(90) < 4, np.nan, points[:, 0])
    figure = plotting.latent_plane(points, {"kind": (codes, words), "age": (holed, ())}, ("one", "two"), "a title")
    left, right = [axes for axes in figure.axes if axes.get_title()]
    assert (left.get_title(), right.get_title(), left.get_ylabel()) == ("kind", "age", "two")
    names = [text.get_text() for text in left.get_legend().get_texts()]
    assert names == [*words[:9], "other"]
    drawn = [np.asarray(cloud.get_offsets()) for cloud in right.collections]
    np.testing.assert_array_equal(drawn[0], points[:4])
    np.testing.assert_array_equal(drawn[1], points[4:])
    colours = right.collections[1].get_facecolor()
    assert colours[points[4:, 0].argmax(), 0] > colours[points[4:, 0].argmin(), 0]  # from dark violet to yellow
    assert inside_and_apart(figure, texts(figure))
    (axes,) = plotting.latent_plane(points, {}, ("one", "two"), "a title").axes
    assert axes.get_title() == ""


# Charts


@pytest.mark.parametrize("epochs", [1, 2, 40])
def test_curves_draw_both_splits_of_every_term(epochs):
    def terms():
        return {name: RNG.random(epochs) for name in ("loss", "log_likelihood", "kl")}

    histories = {"A": {"train": terms(), "validation": terms()}, "B": {"train": terms(), "validation": terms()}}
    figure = plotting.curves(histories, "a title", note="Training values are running means. " * 8, unit="nats per row")
    for axes, term in zip(figure.axes, ("loss", "log_likelihood", "kl"), strict=True):
        drawn = [line.get_ydata() for line in axes.lines]
        expected = [histories[model][split][term] for model in "AB" for split in ("train", "validation")]
        for line, values in zip(drawn, expected, strict=True):
            np.testing.assert_array_equal(line, values)
        assert axes.get_ylabel() == "nats per row"
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["A, train", "A, validation", "B, train", "B, validation"]
    assert inside_and_apart(figure, texts(figure))


def test_requested_against_measured_states_the_correlation_of_what_could_be_measured():
    requested = RNG.normal(size=(300, 2)) * [1, 20]
    measured = requested * [-1, 1] + RNG.normal(size=(300, 2)) * [0.5, 0.1]
    measured[7, 0] = np.nan
    figure = plotting.requested_against_measured(requested, measured, ["thickness", "slant"], ["px", "°"], "a title")
    for k, (axes, cloud) in enumerate(zip(figure.axes, clouds(figure), strict=True)):
        valid = np.isfinite(measured[:, k])
        np.testing.assert_allclose(cloud, np.stack([requested[valid, k], measured[valid, k]], axis=1))
        (identity,) = axes.lines
        np.testing.assert_array_equal(identity.get_xdata(), identity.get_ydata())
        assert axes.get_xlim() == axes.get_ylim()
    r = np.corrcoef(requested[:, 0][np.isfinite(measured[:, 0])], measured[:, 0][np.isfinite(measured[:, 0])])[0, 1]
    notes = [axes.texts[0].get_text() for axes in figure.axes]
    assert notes[0] == f"r = {MINUS}{-r:.3f} ± {(1 - r**2) / 298**0.5:.3f}\n1 of 300 not measurable"
    assert notes[1] == "r = 1.000 ± <0.001"
    assert [axes.get_xlabel() for axes in figure.axes] == ["requested (px)", "requested (°)"]
    assert inside_and_apart(figure, texts(figure))


def test_calibration_draws_filled_bins_and_states_the_error():
    confidence, accuracy = np.array([np.nan, 0.3, 0.6, 0.9]), np.array([np.nan, 0.2, 0.6, 1.0])
    figure = plotting.calibration(confidence, accuracy, np.array([0, 10, 30, 60]), "a title")
    above, below = figure.axes
    bars = [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in above.patches]
    np.testing.assert_allclose(bars, [(37.5, 20), (62.5, 60), (87.5, 100)])
    np.testing.assert_allclose([bar.get_height() for bar in below.patches], [10, 30, 60])
    (note,) = above.texts
    assert note.get_text() == "expected calibration error 7.0 %"
    assert above.get_xlim() == below.get_xlim() == (0, 100)


def table(columns, rows=60):
    """Rows in which columns 1 and 3 are strongly related, and their names."""
    x = RNG.normal(size=(rows, columns)) * np.arange(1, columns + 1)
    x[:, 3] = 1e6 - 2 * x[:, 1] + 0.1 * RNG.normal(size=rows)
    return x, [f"column {k}" for k in range(columns)]


def test_marginals_show_the_columns_that_agree_least():
    real, names = table(16)
    drawn = np.concatenate([real, real]) + np.where(np.arange(16) > 2, 1, 0) * real.std(axis=0)
    real[5:9, 15] = np.nan
    drawn[:, 4] = np.nan
    figure = plotting.marginals(real, drawn, names, "a title")
    titles = [axes.get_title() for axes in figure.axes if axes.get_visible()]
    assert [title.split(":")[0] for title in titles] == [f"column {k}" for k in (3, *range(5, 16))]
    present = real[np.isfinite(real[:, 15]), 15]
    assert titles[-1].endswith(f"KS {ks_2samp(present, drawn[:, 15]).statistic:.3f}")
    assert "the 12 of 16 columns that agree least" in figure._suptitle.get_text()
    assert inside_and_apart(figure, texts(figure))


def test_marginals_bin_integers_around_their_values():
    real = RNG.integers(0, 4, (50, 1))
    (axes,) = plotting.marginals(real, real[:30], ["count"], "a title").axes
    edges = {round(bar.get_x(), 6) for bar in axes.patches[:-1]}
    assert edges == {-0.5, 0.5, 1.5, 2.5}


def test_marginals_draw_the_shares_of_categories_as_bars():
    real, drawn = np.array([[0.0, 1, 1, np.nan]]).T, np.array([[0.0, 0, 2, 1]]).T
    (axes,) = (figure := plotting.marginals(real, drawn, ["size"], "a title", [("small", "middle", "large")])).axes
    heights = [bar.get_height() for bar in axes.patches]
    np.testing.assert_allclose(heights, [1 / 3, 2 / 3, 0, 0.5, 0.25, 0.25])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["small", "middle", "large"]
    assert axes.get_title() == f"size: TV {0.5 * (1 / 6 + 5 / 12 + 1 / 4):.3f}"
    assert inside_and_apart(figure, [*texts(figure), *axes.get_xticklabels()])
    many = [f"category {k}" for k in range(30)]
    codes = np.repeat(np.arange(30.0), np.arange(1, 31))[:, None]
    (axes,) = (figure := plotting.marginals(codes, codes, ["size"], "a title", [many])).axes
    assert axes.get_xlabel() == "12 of 30 categories"
    assert axes.get_xticklabels()[-1].get_text() == "category 29"
    assert inside_and_apart(figure, [*texts(figure), *axes.get_xticklabels()])


@pytest.mark.parametrize("columns", [3, 20])
def test_associations_stand_beside_each_other_on_one_scale(columns):
    real = np.corrcoef(RNG.normal(size=(columns, 30)))
    drawn = np.corrcoef(RNG.normal(size=(columns, 30)))
    real[0, 1] = real[1, 0] = np.nan
    names = [f"column number {k}" for k in range(columns)]
    figure = plotting.associations(real, drawn, names, "a title", "what is shown")
    left, right, _ = figure.axes
    for axes, matrix in ((left, real), (right, drawn)):
        np.testing.assert_array_equal(np.ma.filled(axes.images[0].get_array(), np.nan), matrix)
        assert axes.images[0].get_clim() == (-1, 1)
    off = ~np.eye(columns, dtype=bool)
    assert f"difference {np.nanmean(np.abs(real - drawn)[off]):.3f}" in figure._suptitle.get_text().replace("\n", " ")
    assert len(left.texts) == (4 if columns == 3 else 0)
    labels = [*left.get_yticklabels(), *left.get_xticklabels(), *right.get_xticklabels()]
    assert inside_and_apart(figure, [*texts(figure), *labels, figure._supxlabel])
    with pytest.raises(ValueError, match=r"drawn must have shape \(1, 1\), got"):
        plotting.associations(np.eye(1), drawn, ["a"], "T", "")


def test_means_by_group_are_drawn_with_two_standard_errors():
    value = np.array([[1.0, 2.0, 3.0], [0.1, 0.2, 0.3]])
    words = plotting.ByGroup("species", "share of island Biscoe", ["Adelie", "Gentoo", "Chinstrap"], value, value + 1)
    numbers = plotting.ByGroup("age", "height", np.array([1.0, 2.0, 5.0]), value, 2 * value)
    figure = plotting.by_group([[words, numbers], [numbers]], "a title")
    first, second, third, hidden = figure.axes
    assert not hidden.get_visible()
    test, generated = second.containers
    np.testing.assert_array_equal(test.lines[0].get_xydata(), np.stack([numbers.groups, value[0]], axis=1))
    np.testing.assert_array_equal(generated.lines[0].get_ydata(), 2 * value[0])
    ends = np.array([segment[:, 1] for segment in test.lines[2][0].get_segments()])
    np.testing.assert_allclose(ends, np.stack([value[0] - 2 * value[1], value[0] + 2 * value[1]], axis=1))
    assert [label.get_text() for label in first.get_xticklabels()] == ["Adelie", "Gentoo", "Chinstrap"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["test", "generated"]
    assert third.get_xlabel() == "age"
    assert inside_and_apart(figure, [*texts(figure), *first.get_xticklabels()])


@pytest.mark.parametrize("missing", [False, True])
def test_pair_shows_the_columns_that_correlate_most(missing):
    real, names = table(6)
    drawn = np.concatenate([real, real])
    real[4, [0, 1]] = np.nan if missing else 1
    figure = plotting.pair(real, drawn, names, "a title")
    left, right = figure.axes
    assert (left.get_xlabel(), left.get_ylabel()) == ("column 1", "column 3")
    np.testing.assert_array_equal(clouds(figure)[1], drawn[:, [1, 3]])
    assert left.get_title().startswith(f"{60 - missing} test rows, r = {MINUS}")
    assert right.get_title() == f"120 generated rows, r = {np.corrcoef(drawn[:, 1], drawn[:, 3])[0, 1]:.3f}".replace(
        "-", MINUS
    )
    assert inside_and_apart(figure, texts(figure))


def test_pair_of_many_columns_is_one_of_those_that_vary_most():
    real, names = table(300)
    drawn = RNG.normal(size=(40, 300))
    real[:, 250] = real[:, 17] = 1e-3 * RNG.normal(size=len(real))
    figure = plotting.pair(real, drawn, names, "a title")
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("column 17", "column 250")
    assert "200 of 300 columns" in figure._suptitle.get_text().replace("\n", " ")


def test_constant_columns_have_no_correlation():
    figure = plotting.pair(np.ones((5, 2)), np.ones((9, 2)), ["a", "b"], "a title")
    assert [axes.get_title() for axes in figure.axes] == [
        "5 test rows, r is undefined",
        "9 generated rows, r is undefined",
    ]


# Sweeps


def saturating(sizes=(1, 2, 4, 8, 16, 32, 64), kinds=3):
    """Lines as sweeps have them: once latents are left unused, points all but coincide."""
    sizes = np.array(sizes)
    error = np.full(len(sizes), 0.2)
    return {
        f"kind {k}": {
            "rate": (25 - k) * (1 - np.exp(-sizes / 5)),
            "distortion": 70 - k + 100 * np.exp(-sizes / 4),
            "rate_error": error,
            "distortion_error": 2 * error,
            "latent_size": sizes,
        }
        for k in range(kinds)
    }


@pytest.mark.parametrize("lines", [saturating(), saturating((16,), 1)], ids=["lines", "a point"])
def test_rate_distortion_joins_equal_elbos_and_labels_every_point(lines):
    figure = plotting.rate_distortion(lines, "a title")
    (axes,) = figure.axes
    handles, names = axes.get_legend_handles_labels()
    for name, line in lines.items():
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
    assert [text.get_text() for text in sizes] == [f"{size}" for line in lines.values() for size in line["latent_size"]]
    last = list(lines.values())[-1]
    np.testing.assert_allclose(sizes[-1].xy, (last["rate"][-1], last["distortion"][-1]))
    assert inside_and_apart(figure, sizes)
    assert inside_and_apart(figure, texts(figure))


def test_against_latent_size_has_the_sizes_as_ticks():
    lines = {
        "one": {"latent_size": np.array([1, 4, 16]), "value": RNG.random(3), "value_error": RNG.random(3)},
        "other": {"latent_size": np.array([2, 4]), "value": RNG.random(2), "value_error": RNG.random(2)},
    }
    figure = plotting.against_latent_size(lines, "ELBO (nats)", "a title")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "4", "16"]
    np.testing.assert_array_equal(axes.get_xticks(), [1, 2, 4, 16])
    handles, names = axes.get_legend_handles_labels()
    assert names == ["one", "other"]
    assert handles[0].lines[0].get_marker() != handles[1].lines[0].get_marker()
    for handle, line in zip(handles, lines.values(), strict=True):
        np.testing.assert_array_equal(handle.lines[0].get_ydata(), line["value"])
        ends = np.array([segment[:, 1] for segment in handle.lines[2][0].get_segments()])
        value, error = line["value"], line["value_error"]
        np.testing.assert_allclose(ends, np.stack([value - error, value + error], axis=1))
    assert inside_and_apart(figure, texts(figure))


def test_by_condition_has_one_scale_for_all_panels():
    panels = {"all (nats)": {"none": (-90.0, 1.0), "label": (-80.0, 0.5)}, "hidden (nats)": {"image": (-60.0, 0.2)}}
    figure = plotting.by_condition(panels, "a title")
    spans = [np.diff(axes.get_xlim())[0] for axes in figure.axes]
    assert spans[0] == pytest.approx(spans[1])
    assert spans[0] > 11.5
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["none", "label"]
    assert [text.get_text() for text in figure.axes[0].texts] == [f"{MINUS}90.00", f"{MINUS}80.00"]
    assert inside_and_apart(figure, texts(figure))

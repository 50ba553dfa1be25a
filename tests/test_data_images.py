"""Folders of images: what is read in which order, and what is refused by the name of the file."""

import numpy as np
import pytest
from PIL import Image

from cvae.data import read_images

RNG = np.random.default_rng(1)


def folder_of(path, images, table=None):
    """A folder of these arrays by file name, and a labels.csv of this text."""
    path.mkdir()
    for name, pixels in images.items():
        Image.fromarray(pixels).save(path / name)
    if table is not None:
        (path / "labels.csv").write_text(table)
    return path


def pixels(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def test_images_are_read_by_name_grey_or_rgb(tmp_path):
    grey = {"b.png": pixels(4, 3), "a.PNG": pixels(4, 3)}
    images, table, names, notes = read_images(folder_of(tmp_path / "grey", grey))
    assert (names, table["file"].to_list(), notes) == ("file", ["a.PNG", "b.png"], [])
    np.testing.assert_array_equal(images, np.stack([grey["a.PNG"], grey["b.png"]])[..., None])
    colour = {"a.png": pixels(4, 3, 3)}
    np.testing.assert_array_equal(read_images(folder_of(tmp_path / "colour", colour))[0], [colour["a.png"]])
    folder_of(tmp_path / "photos", {"a.jpg": np.full((4, 3), 100, np.uint8)})
    assert read_images(tmp_path / "photos")[0].mean() == pytest.approx(100, abs=2)


def test_a_photograph_stands_as_its_camera_did(tmp_path):
    (tmp_path / "photos").mkdir()
    lying, exif = Image.fromarray(pixels(4, 3)), Image.Exif()
    exif[274] = 6  # the tag of the orientation: turned by a quarter
    lying.save(tmp_path / "photos" / "a.png", exif=exif)
    images = read_images(tmp_path / "photos")[0]
    np.testing.assert_array_equal(images[0, ..., 0], np.rot90(np.asarray(lying), -1))


def test_the_rows_of_the_table_decide_which_and_in_which_order(tmp_path):
    images = {f"{k}.png": pixels(2, 2) for k in "abc"}
    folder = folder_of(tmp_path / "few", images, "age,name\n3,c.png\n4,a.png\n")
    read, table, names, notes = read_images(folder)
    assert names == "name"
    np.testing.assert_array_equal(read[..., 0], [images["c.png"], images["a.png"]])
    assert table["age"].to_list() == [3, 4]
    assert notes == ["1 of 3 images are not named in labels.csv, and left out"]


REFUSED = {
    "no folder": (None, None, "must be a folder of images, got no such folder"),
    "empty": ({}, None, r"must hold images \(.png, .jpg, .jpeg\), got none"),
    "sizes": ({"a.png": pixels(2, 2), "b.png": pixels(2, 3)}, None, r"b.png must have the height.*got \(2, 3, 1\)"),
    "modes": ({"a.png": pixels(2, 2), "b.png": pixels(2, 2, 3)}, None, r"b.png must have .*got \(2, 2, 3\)"),
    "transparent": ({"a.png": pixels(2, 2, 4)}, None, "a.png must be grey or RGB with 8 bits.*got mode RGBA"),
    "16 bits": ({"a.png": pixels(2, 2).astype(np.uint16) * 200}, None, "be grey or RGB with 8 bits.*got mode I;16"),
    "no names": ({"a.png": pixels(2, 2)}, "x,y\n1,2\n", "must have a column with the names .*such as a.png"),
    "twice": ({"a.png": pixels(2, 2)}, "f,y\na.png,2\na.png,3\n", "every image once in .f., got .a.png. twice"),
    "absent": ({"a.png": pixels(2, 2)}, "f,y\na.png,2\nb.png,3\n", "in every row of 'f', got 'b.png' at row 1"),
}  # fmt: skip


@pytest.mark.parametrize(("images", "table", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused(images, table, message, tmp_path):
    if images is not None:
        folder_of(tmp_path / "folder", images, table)
    with pytest.raises(ValueError, match=message):
        read_images(tmp_path / "folder")


def test_a_damaged_image_is_named(tmp_path):
    folder = folder_of(tmp_path / "folder", {"a.png": pixels(9, 9)})
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:60])
    with pytest.raises(ValueError, match=r"b\.png must be a readable image, got"):
        read_images(folder)

"""Stroke attributes of images of digits: thickness and slant, as defined by Morpho-MNIST.

Real images are measured to condition a model on the result, and generated images to see whether they follow the
condition. Host arrays in, host arrays out.

References:
    Castro, Tan, Kainz, Konukoglu & Glocker 2019, Morpho-MNIST, JMLR 20.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt, zoom
from skimage.morphology import skeletonize
from tqdm.auto import tqdm

from cvae import checks
from cvae.progress import bar_options

NAMES = ("thickness", "slant")  # the columns of `measure`

_CHUNK = 50  # images measured at once, few enough for the processor's cache
_SCALE = 3  # with 2, thickness depends 1.3 times as much on how a stroke lies between pixels; 4 is twice as slow
_THRESHOLD = 0.5 + 1e-6  # of the maximum; above half, so that rounding does not decide ties
_MIN_VARIANCE = 1e-9  # pixels squared; rounding alone gives a single row of ink less


def measure(x: Any, progress: bool = False) -> np.ndarray:
    """Measure thickness and slant of every image, in the order of `NAMES`.

    Args:
        x: images [N, H, W, 1], uint8 255ths or floats in [0, 1].
        progress: whether to show a progress bar.

    Returns:
        float32 [N, 2], in pixels and radians. Both are NaN for a blank image.
    """
    pixels = checks.Spec((*checks.shape_of("x", x)[1:3], 1), "pixels", 0, 1)
    pixels.check("x", x)
    measured = np.empty((len(x), len(NAMES)), np.float32)
    with tqdm(total=len(x), desc="measuring strokes", unit="image", **bar_options(progress)) as bar:
        for start in range(0, len(x), _CHUNK):
            grey = np.asarray(pixels.cast(x[start : start + _CHUNK]), np.float32)[..., 0]
            measured[start : start + len(grey)] = np.stack([thickness(grey), slant(grey)], axis=1)
            bar.update(len(grey))
    return measured


def thickness(grey: np.ndarray) -> np.ndarray:
    """Mean stroke thickness, in pixels.

        2 mean_{p in skeleton} d(p)

    where d(p) is the distance from p to the nearest background pixel. The image is first enlarged three times by
    linear interpolation, which places edges between pixels, and binarised at half of its maximum, which makes the
    measure independent of contrast. Strokes of 1.5 to 6 pixels with round ends are measured to 0.15 pixels (root mean
    square over widths, directions and positions); thinner strokes than a pixel are measured as about one pixel.

    Shapes: [N, H, W] in [0, 1] -> [N].
    """
    peak = grey.max(axis=(1, 2), keepdims=True)
    # With a blank margin, images stacked into one column are processed in one call without touching each other.
    padded = np.pad(grey / np.where(peak > 0, peak, 1), ((0, 0), (1, 1), (1, 1)))
    count, height, width = padded.shape
    ink = zoom(padded.reshape(-1, width), _SCALE, order=1, mode="nearest", grid_mode=True) > _THRESHOLD
    skeleton = np.nonzero(skeletonize(ink))  # type: ignore[no-untyped-call]
    image = skeleton[0] // (_SCALE * height)
    total = np.bincount(image, distance_transform_edt(ink)[skeleton], minlength=count)
    with np.errstate(invalid="ignore"):  # 0 / 0 for a blank image
        return np.asarray(2 / _SCALE * total / np.bincount(image, minlength=count))


def slant(grey: np.ndarray) -> np.ndarray:
    """Slant in radians, positive for strokes that lean to the right.

        atan(-mu_11 / mu_02),    mu_pq = sum_{row, column} x (column - mean column)^p (row - mean row)^q

    This is the angle of the horizontal shear that makes columns and rows uncorrelated under the ink. The sign accounts
    for rows being counted downwards.

    Shapes: [N, H, W] in [0, 1] -> [N], in (-pi/2, pi/2); NaN for blank images and for ink in a single row.
    """
    row, column = np.arange(grey.shape[1]), np.arange(grey.shape[2])
    with np.errstate(invalid="ignore"):  # 0 / 0 for a blank image
        ink = grey / grey.sum(axis=(1, 2), keepdims=True, dtype=np.float64)
        down = row - np.einsum("nij,i->n", ink, row)[:, None]
        right = column - np.einsum("nij,j->n", ink, column)[:, None]
        variance = np.einsum("nij,ni->n", ink, down**2)
        shear = -np.einsum("nij,ni,nj->n", ink, down, right) / np.where(variance > _MIN_VARIANCE, variance, np.nan)
    return np.asarray(np.arctan(shear))

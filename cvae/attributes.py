"""Stroke attributes: how thick and how slanted the digit of a picture is, as one number each.

Host arrays in, host arrays out. Data sets are measured to condition on the result, and generated pictures to see
whether they are what was asked for, so both are measured alike, be their edges sharp or soft. The definitions are
those of Morpho-MNIST (Castro, Tan, Kainz, Konukoglu & Glocker 2019, JMLR 20). Knows no models.

Pillow, SciPy, scikit-image and tqdm are imported by the functions that need them, because they are slow to import.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cvae import checks

NAMES = ("thickness", "slant")  # the columns of `measure`

_CHUNK = 50  # pictures laid out as one, which still fits the processor's cache: the fastest of 25 to 1000
_ENLARGEMENT = 3  # at 2, thickness varies 1.3 times as much with where a digit lies between pixels; 4 is twice as slow

_HALF, _QUARTER = 0.5 + 1e-6, 0.25  # of the maximum; a little over half, lest rounding decide what a tie is
_ROUNDING = 1e-9  # pixels squared: a single row of ink has a variance of its rows no larger than this


def thickness(x: np.ndarray) -> np.ndarray:
    """Mean stroke thickness, in pixels of the picture as given.

        2 mean_{p in skeleton} d(p)

    where d(p) is the distance from p to the nearest pixel that is no ink. Ink is what exceeds half of the picture's
    own maximum (so contrast does not matter, and a faint picture is measured too), after the picture was enlarged 3
    times by linear interpolation, which finds edges between pixels from the grey levels there. Strokes of 1.5 to 6
    pixels with round ends are measured to 0.15 pixels (root mean square over widths, directions and positions).

    Shapes: x [N, H, W, 1], uint8 255ths or floats in [0, 1] -> float32 [N]; NaN where a picture is blank.
    Strokes thinner than a pixel are measured as one of about a pixel.
    Raises ValueError for any other x.  Castro et al. 2019.
    """
    return _measured(x, (_thickness,), progress=False)[:, 0]


def slant(x: np.ndarray) -> np.ndarray:
    """Slant in radians, positive where the digit leans right, as an italic does.

        atan(-mu_11 / mu_02),    mu_pq = sum_{row, column} x (column - mean column)^p (row - mean row)^q

    the angle of the horizontal shear that has to be undone for the ink's columns to be uncorrelated with its rows;
    the minus, because rows are counted downwards.

    Shapes: x [N, H, W, 1], uint8 255ths or floats in [0, 1] -> float32 [N], in (-pi/2, pi/2); NaN where a picture
    is blank or its ink has no height.
    Raises ValueError for any other x.  Castro et al. 2019.
    """
    return _measured(x, (_slant,), progress=False)[:, 0]


def measure(x: np.ndarray, progress: bool = False) -> np.ndarray:
    """Both attributes of every picture, in the order of `NAMES`.

    Args:
        x: pictures [N, H, W, 1], uint8 255ths or floats in [0, 1].
        progress: whether to show a bar.

    Returns: float32 [N, 2]. Raises ValueError for any other x.
    """
    return _measured(x, (_thickness, _slant), progress)


def _measured(x: Any, attributes: tuple[Callable[[np.ndarray], np.ndarray], ...], progress: bool) -> np.ndarray:
    """Each attribute of every picture, chunk by chunk: [N, H, W, 1] -> float32 [N, attributes]."""
    from tqdm.auto import tqdm

    shape = checks.shape_of("x", x)
    checks.require(shape[3:] == (1,) and min(shape[1:3]) > 0, "x", "have shape [N, H, W, 1]", shape)
    if x.dtype != np.uint8:
        checks.require(checks.is_float(x.dtype), "x", "be uint8 or floats in [0, 1]", f"{x.dtype} values")
        checks.unit_interval("x", x)
    x = np.asarray(x)[..., 0]
    measured = np.empty((len(x), len(attributes)), np.float32)
    with tqdm(total=len(x), desc="measuring", unit="pictures", disable=not progress) as bar:
        for start in range(0, len(x), _CHUNK):
            chunk = x[start : start + _CHUNK]
            grey = chunk.astype(np.float32) / (255 if chunk.dtype == np.uint8 else 1)
            for column, attribute in enumerate(attributes):
                measured[start : start + len(chunk), column] = attribute(grey)
            bar.update(len(chunk))
    return measured


def _thickness(grey: np.ndarray) -> np.ndarray:
    """Thickness of a chunk [N, H, W] of pictures in [0, 1]: all at once, one below the other."""
    from PIL import Image
    from scipy.ndimage import distance_transform_edt
    from skimage.morphology import skeletonize

    windows = _windows(grey)
    count, height, width = windows.shape
    height, width = _ENLARGEMENT * height, _ENLARGEMENT * width
    column = Image.fromarray(windows.reshape(-1, windows.shape[2]))
    ink = np.asarray(column.resize((width, count * height), Image.Resampling.BILINEAR)) > _HALF
    skeleton = np.nonzero(skeletonize(ink))  # type: ignore[no-untyped-call]
    picture = skeleton[0] // height
    distance = distance_transform_edt(ink)[skeleton]
    length = np.bincount(picture, minlength=count)
    total = np.bincount(picture, distance, minlength=count)
    with np.errstate(invalid="ignore"):  # 0 / 0 where a picture is blank
        return np.asarray(2 / _ENLARGEMENT * total / length)


def _windows(grey: np.ndarray) -> np.ndarray:
    """Cut a window of one size for all around the ink of every picture, which is scaled to a maximum of 1.

    A window's outermost pixels hold less than a quarter of the maximum. Linear interpolation looks one pixel far,
    so what lies beside a window cannot turn any of its pixels into ink, nor can its ink touch that of another.

    Shapes: [N, H, W] -> [N, h, w], 3 <= h <= H + 2, 3 <= w <= W + 2.
    """
    peak = grey.max(axis=(1, 2), keepdims=True)
    scaled = np.pad(grey / np.where(peak > 0, peak, 1), ((0, 0), (1, 1), (1, 1)))
    firsts, sizes = [], []
    for other in (2, 1):
        inked = np.asarray(np.any(scaled > _QUARTER, axis=other))
        length = inked.shape[1]
        # A blank picture counts as ink of one pixel, just inside the margin.
        inked[~inked.any(axis=1), 1] = True
        first, last = inked.argmax(axis=1) - 1, length - inked[:, ::-1].argmax(axis=1)
        sizes.append(int((last - first).max()) + 1)
        firsts.append(np.minimum(first, length - sizes[-1]))
    views = np.lib.stride_tricks.sliding_window_view(scaled, tuple(sizes), axis=(1, 2))
    return np.asarray(views[np.arange(len(grey)), firsts[0], firsts[1]])


def _slant(grey: np.ndarray) -> np.ndarray:
    """Slant of a chunk [N, H, W] of pictures in [0, 1]."""
    row, column = np.arange(grey.shape[1]), np.arange(grey.shape[2])
    with np.errstate(invalid="ignore"):  # 0 / 0 where a picture is blank
        ink = grey / grey.sum(axis=(1, 2), keepdims=True, dtype=np.float64)
        down = row - np.einsum("nij,i->n", ink, row)[:, None]
        right = column - np.einsum("nij,j->n", ink, column)[:, None]
        height = np.einsum("nij,ni->n", ink, down**2)
        shear = -np.einsum("nij,ni,nj->n", ink, down, right) / np.where(height > _ROUNDING, height, np.nan)
    return np.asarray(np.arctan(shear))

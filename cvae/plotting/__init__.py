"""Figures: host arrays in, matplotlib figures out; knows no models and opens no window.

    figure = cvae.plotting.grid(images, "test images", row_labels=["data", "model"])
    cvae.plotting.save(figure, "figures/reconstructions")  # reconstructions.png and reconstructions.pdf

Figures are made without pyplot, so they hold no global state and need no display; a notebook shows the one it gets.
`images` has grids of images, `latents` scatter plots of the latent space, `sweeps` results over latent sizes and
conditions, `tables` rows of tables, `charts` the other charts, and `style` what they share.
"""

from cvae.plotting.charts import calibration, curves, requested_against_measured
from cvae.plotting.images import completions, grid, tile, write
from cvae.plotting.latents import latent_plane, latents
from cvae.plotting.style import save
from cvae.plotting.sweeps import against_latent_size, by_condition, rate_distortion
from cvae.plotting.tables import ByGroup, associations, by_group, marginals, pair

__all__ = [
    "ByGroup",
    "against_latent_size",
    "associations",
    "by_condition",
    "by_group",
    "calibration",
    "completions",
    "curves",
    "grid",
    "latent_plane",
    "latents",
    "marginals",
    "pair",
    "rate_distortion",
    "requested_against_measured",
    "save",
    "tile",
    "write",
]

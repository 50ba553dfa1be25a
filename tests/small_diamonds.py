"""A stand-in for the diamonds table, which tests must not download: the same columns, types and categories."""

import numpy as np
import polars as pl

CATEGORIES = {
    "cut": ["Fair", "Good", "Very Good", "Premium", "Ideal"],
    "color": list("DEFGHIJ"),
    "clarity": ["I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF"],
}


def diamonds(size=600):
    """Rows whose sides and price follow the carats; three in a hundred lack a side."""
    rng = np.random.default_rng(0)
    carat = np.exp(rng.normal(-0.4, 0.6, size)).clip(0.2, 5).round(2)

    def noisy(values, spread):
        return values * np.exp(rng.normal(0, spread, size))

    columns = {
        "carat": carat,
        **{name: rng.choice(words, size) for name, words in CATEGORIES.items()},
        "depth": rng.normal(61.7, 1.4, size).round(1),
        "table": rng.normal(57.5, 2.2, size).round(1),
        "price": noisy(4500 * carat**1.7, 0.2).astype(int),
        **{
            name: noisy(side * carat ** (1 / 3), 0.02).round(2) for name, side in {"x": 6.5, "y": 6.5, "z": 4.0}.items()
        },
    }
    columns["z"][-1] = 31.8  # an error of the real table, too
    frame = pl.DataFrame(columns)
    return frame.with_columns(
        pl.when(pl.int_range(size) % 100 != number).then(pl.col(name)).alias(name) for number, name in enumerate("xyz")
    )

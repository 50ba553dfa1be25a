"""Likelihoods: families of p(x | z, c), each one class of settings.

A likelihood says how many numbers the decoder has to give (`num_outputs`), what the encoder sees of x (`features`),
which distribution the decoder's outputs parametrise (`distribution`), and which x it can score (`spec`). A subclass
with these four, defined anywhere, can be passed to `Architecture(likelihood=...)`. Densities are `distributions`'.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from pydantic import Field

from cvae import checks, compound, discrete, distributions
from cvae.checks import SMALLEST, Spec
from cvae.distributions import Distribution, Standardized, center_and_spread, standardize
from cvae.settings import Finite, NonNegative, chosen_by_name, replace, setting

# The standard deviation of standardised x: beyond this range squares of gradients leave float32.
Scale = Annotated[float, Field(ge=1e-6, le=1e6)]


@setting
class Likelihood:
    """A family of densities p(x | z, c) over events of any shape."""

    def num_outputs(self, event_shape: tuple[int, ...]) -> int:
        """How many numbers per example the decoder gives; a multiple of the number of pixels for images."""
        return math.prod(event_shape)

    def features(self, x: Any) -> Array:
        """What the encoder sees of x, [B, *event] -> [B, *feature_shape], in the order of 1 in size."""
        return jnp.asarray(x)

    def feature_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of `features` of one example."""
        x = jax.ShapeDtypeStruct((1, *event_shape), jnp.float32)  # type: ignore[no-untyped-call]
        return tuple(jax.eval_shape(self.features, x).shape[1:])

    def distribution(self, outputs: Array, event_shape: tuple[int, ...]) -> Distribution:
        """p(x | z, c) from the decoder's outputs, [B, num_outputs] -> over [B, *event]."""
        raise NotImplementedError

    def spec(self, event_shape: tuple[int, ...]) -> Spec:
        """Which x it can score."""
        return Spec(event_shape, "pixels")

    @property
    def origin(self) -> tuple[float, ...] | None:
        """Where x is centred, per channel or for all, if far from 0; see `at_origin`."""
        return None

    def at_origin(self) -> Likelihood:
        """The same family for x - origin.

        Arrays are float32 on a device, which holds no digits of what varies around a large mean; so the mean of a
        data set is subtracted in float64 on the host, and the densities stay the same.
        """
        return self


@setting
class Bernoulli(Likelihood):
    """Binary elements with p(1) = sigmoid(output); grey ones in (0, 1) are scored by the same cross-entropy."""

    def distribution(self, outputs: Array, event_shape: tuple[int, ...]) -> Distribution:
        """Shapes: [B, D] -> over [B, *event]."""
        return distributions.Bernoulli(outputs.reshape(-1, *event_shape))

    def spec(self, event_shape: tuple[int, ...]) -> Spec:
        """Values in [0, 1], uint8 as 255ths."""
        return Spec(event_shape, "pixels", 0, 1)


@setting
class ContinuousBernoulli(Bernoulli):
    """Grey elements in [0, 1], by a normalised density."""

    def distribution(self, outputs: Array, event_shape: tuple[int, ...]) -> Distribution:
        """Shapes: [B, D] -> over [B, *event]."""
        return distributions.ContinuousBernoulli(outputs.reshape(-1, *event_shape))


@setting
class Normal(Likelihood):
    """Real elements x = location + scale y, with y Gaussian given z and c; `Normal.fitted(x)` takes both from data.

        log p(x | z, c) = log N((x - location) / scale; m(z, c), s(z, c)) - log scale,   per element
        log s = log low + (log high - log low) sigmoid(output + b),   (low, high) = bounds;   or s = std

    So networks see numbers of the order of 1, and nats are in the units of x. The constant b makes s = 1 where the
    output is 0: with small initial outputs, training starts at the Gaussian of the data. Without a lower bound, an
    element that the decoder can predict exactly would be worth infinitely many nats.
    """

    std: Scale | None = None
    """fixed standard deviation in units of scale; None has the decoder learn it"""
    bounds: tuple[Scale, Scale] = (0.01, 10.0)
    """range of a learned standard deviation, in units of scale"""
    location: tuple[Finite, ...] = (0.0,)
    """mean of x per channel (the last axis), or one for all"""
    scale: tuple[NonNegative, ...] = (1.0,)
    """standard deviation of x per channel, or one for all; 0 marks a constant, which has no density"""

    def __post_init__(self) -> None:
        checks.require(self.bounds[0] < self.bounds[1], "bounds", "be two numbers, the lower first", self.bounds)
        same = len(self.location) == len(self.scale) > 0
        checks.require(same, "scale", f"have one number per location, {len(self.location)}", len(self.scale))

    @classmethod
    def fitted(cls, x: Any, **fields: Any) -> Normal:
        """The likelihood with location and scale of training examples, per channel (the last axis).

        A channel that never varies gets scale 0: it has no density, counts 0 nats, and is drawn as its constant.

        Shapes: [N, *event].
        Raises: ValueError if x is not real numbers of at least one axis besides N, or nothing in it varies.
        """
        shape = checks.shape_of("x", x)
        Spec(shape[1:], "pixels" if x.dtype == np.uint8 else "real", missing=True).check("x", x)
        checks.require(len(shape) > 1 and 0 not in shape, "x", "have shape [N, *event]", shape)
        values = np.asarray(Spec(shape[1:], "pixels").cast(x), np.float64).reshape(-1, shape[-1])
        location, scale = center_and_spread(values)
        checks.require(bool((scale > 0).any()), "x", "vary", f"{values.flat[0]:.9g} throughout")
        return cls(location=tuple(location.tolist()), scale=tuple(scale.tolist()), **fields)

    def num_outputs(self, event_shape: tuple[int, ...]) -> int:
        """A mean per element of x, and its scale if that is learned."""
        channels = {1, event_shape[-1]}
        checks.require(len(self.scale) in channels, "scale", f"have 1 or {event_shape[-1]} numbers", len(self.scale))
        return math.prod(event_shape) * (1 if self.std is not None else 2)

    def features(self, x: Any) -> Array:
        """(x - location) / scale."""
        return jnp.asarray(standardize(x, self.location, self.scale))

    def distribution(self, outputs: Array, event_shape: tuple[int, ...]) -> Distribution:
        """Shapes: [B, D or 2 D] -> over [B, *event]."""
        # A step of Adam moves a sum over hundreds of units by as many times its size: unscaled, it keeps predictions of
        # structureless data trembling, and their draws come out a fifth too wide.
        outputs = 0.1 * outputs.reshape(outputs.shape[0], *event_shape, -1)
        mean = outputs[..., 0]
        if self.std is not None:
            log_std = jnp.full(mean.shape, math.log(self.std), mean.dtype)
        else:
            low, high = (math.log(bound) for bound in self.bounds)
            place = min(max(-low / (high - low), 0.05), 0.95)  # of log s = 0 between the bounds
            log_std = low + (high - low) * jax.nn.sigmoid(outputs[..., 1] + math.log(place / (1 - place)))
        return Standardized(distributions.Normal(mean, log_std), self.location, self.scale)

    @property
    def origin(self) -> tuple[float, ...] | None:
        """The location, where there is one."""
        return self.location if any(self.location) else None

    def at_origin(self) -> Normal:
        """The same with location 0."""
        return replace(self, location=(0.0,) * len(self.location))


@setting
class LogNormal(Normal):
    """Positive elements: the logarithm of x is scored as by `Normal`, in the units of x.

        log p(x | z, c) = log N(log x; ...) - log x,   per element

    Location and scale are those of log x.
    """

    @classmethod
    def fitted(cls, x: Any, **fields: Any) -> LogNormal:
        """The likelihood with location and scale of the logarithm of training examples.

        Shapes: [N, *event].
        Raises: ValueError as `Normal.fitted`, or if a value is not above 0.
        """
        shape = checks.shape_of("x", x)
        Spec(shape[1:], low=SMALLEST, missing=True).check("x", x)
        return super().fitted(np.log(np.asarray(x, np.float64)), **fields)  # type: ignore[return-value]

    def features(self, x: Any) -> Array:
        """(log x - location) / scale."""
        return super().features(np.log(x) if isinstance(x, np.ndarray) else jnp.log(x))

    def distribution(self, outputs: Array, event_shape: tuple[int, ...]) -> Distribution:
        """Shapes: [B, D or 2 D] -> over [B, *event]."""
        base = super().distribution(outputs, event_shape)
        assert isinstance(base, Standardized)
        return compound.LogNormal(base)

    def spec(self, event_shape: tuple[int, ...]) -> Spec:
        """Positive numbers."""
        return Spec(event_shape, low=SMALLEST)

    @property
    def origin(self) -> None:
        """None: the logarithm has digits enough."""
        return None

    def at_origin(self) -> LogNormal:
        """The same."""
        return self


@setting
class Poisson(Likelihood):
    """Counts with mean exp(location + output); with an exposure among the conditions, times that.

        log p(x | z, c) = x log r - r - log x!,   log r = location + output + log exposure

    The output is bounded to +-10, smoothly.
    """

    location: tuple[Finite, ...] = (0.0,)
    """logarithm of the mean per channel (the last axis), or one for all"""
    scale: tuple[NonNegative, ...] = (1.0,)
    """standard deviation of log(1 + x), by which features are divided"""

    @classmethod
    def fitted(cls, x: Any, exposure: Any = 1.0) -> Poisson:
        """The likelihood whose mean is that of training examples per unit of exposure.

        Shapes: x [N, *event], exposure [N] or a number.
        Raises: ValueError if x is not whole numbers from 0 on.
        """
        shape = checks.shape_of("x", x)
        Spec(shape[1:], "whole", 0, missing=True).check("x", x)
        values = np.asarray(x, np.float64).reshape(-1, shape[-1])
        exposed = np.broadcast_to(np.asarray(exposure, np.float64).reshape(-1, *[1] * (len(shape) - 1)), shape)
        total = np.where(np.isfinite(values), exposed.reshape(values.shape), 0).sum(axis=0)
        mean = np.maximum(np.nansum(values, axis=0), 0.5) / np.maximum(total, 1e-30)
        spread = center_and_spread(np.log1p(values))[1]
        return cls(tuple(np.log(mean).tolist()), tuple(spread.tolist()))

    def features(self, x: Any) -> Array:
        """log((1 + x) / (1 + mean)), in units of its standard deviation."""
        centre = tuple(math.log1p(math.exp(min(location, 80.0))) for location in self.location)
        return jnp.asarray(standardize(np.log1p(x) if isinstance(x, np.ndarray) else jnp.log1p(x), centre, self.scale))

    def distribution(self, outputs: Array, event_shape: tuple[int, ...]) -> Distribution:
        """Shapes: [B, D] -> over [B, *event]."""
        return discrete.Poisson(self._log_mean(outputs.reshape(-1, *event_shape)))

    def _log_mean(self, outputs: Array) -> Array:
        return jnp.asarray(np.array(self.location), outputs.dtype) + 10 * jnp.tanh(outputs / 10)

    def spec(self, event_shape: tuple[int, ...]) -> Spec:
        """Whole numbers from 0 on."""
        return Spec(event_shape, "whole", 0)


@setting
class NegativeBinomial(Poisson):
    """Counts whose variance exceeds their mean, m + m^2 / r: m as the mean of `Poisson`, and r from the decoder."""

    def num_outputs(self, event_shape: tuple[int, ...]) -> int:
        """A mean and a size per element."""
        return 2 * math.prod(event_shape)

    def distribution(self, outputs: Array, event_shape: tuple[int, ...]) -> Distribution:
        """Shapes: [B, 2 D] -> over [B, *event]."""
        outputs = outputs.reshape(outputs.shape[0], *event_shape, 2)
        return discrete.NegativeBinomial(self._log_mean(outputs[..., 0]), 6 * jnp.tanh(outputs[..., 1] / 6))


@setting
class Categorical(Likelihood):
    """Categories, held as whole numbers from 0 to num_classes - 1."""

    num_classes: Annotated[int, Field(ge=2, lt=2**20)]
    """number of categories"""

    def num_outputs(self, event_shape: tuple[int, ...]) -> int:
        """A logit per category and element."""
        return math.prod(event_shape) * self.num_classes

    def features(self, x: Any) -> Array:
        """One-hot, [B, *event] -> [B, *event[:-1], event[-1] * num_classes]; 0 throughout for a missing element."""
        one_hot = jnp.asarray(x)[..., None] == jnp.arange(self.num_classes)
        return one_hot.reshape(*x.shape[:-1], -1).astype(jnp.float32)

    def distribution(self, outputs: Array, event_shape: tuple[int, ...]) -> Distribution:
        """Shapes: [B, D num_classes] -> over [B, *event]."""
        return discrete.Categorical(outputs.reshape(-1, *event_shape, self.num_classes))

    def spec(self, event_shape: tuple[int, ...]) -> Spec:
        """Whole numbers below num_classes."""
        return Spec(event_shape, "whole", 0, self.num_classes)


@setting
class CategoricalPixels(Bernoulli):
    """8-bit pixels, uint8 or in 255ths, with a probability for each of the 256 levels."""

    def num_outputs(self, event_shape: tuple[int, ...]) -> int:
        """256 logits per pixel."""
        return math.prod(event_shape) * discrete.LEVELS

    def distribution(self, outputs: Array, event_shape: tuple[int, ...]) -> Distribution:
        """Shapes: [B, 256 D] -> over [B, *event]."""
        return discrete.CategoricalPixels(outputs.reshape(-1, *event_shape, discrete.LEVELS))


@setting
class DiscretizedLogistic(Bernoulli):
    """8-bit pixels, uint8 or in 255ths, by a logistic density integrated over each of the 256 levels.

    References: Kingma et al. 2016, Improved variational inference with inverse autoregressive flow.
    """

    def num_outputs(self, event_shape: tuple[int, ...]) -> int:
        """A location and a scale per pixel."""
        return 2 * math.prod(event_shape)

    def distribution(self, outputs: Array, event_shape: tuple[int, ...]) -> Distribution:
        """Shapes: [B, 2 D] -> over [B, *event]."""
        outputs = outputs.reshape(outputs.shape[0], *event_shape, 2)
        # Around the middle grey and a quarter of the range where the outputs are 0; scales from 1/2000 to 30.
        log_scale = -2 + 5.5 * jnp.tanh(outputs[..., 1] / 5.5)
        return discrete.DiscretizedLogistic(0.5 + 0.25 * outputs[..., 0], log_scale)


@setting
class Columns(Likelihood):
    """Rows of a table, each column under a likelihood of its own: independent given z and c.

    Columns of one family are one part: `Columns((Normal.fitted(x[:, [0, 2]]), Categorical(5)), ((0, 2), (1,)))`.
    """

    parts: Annotated[tuple[chosen_by_name(Likelihood), ...], Field(min_length=1)]  # type: ignore[valid-type]
    """the likelihoods"""
    columns: tuple[tuple[int, ...], ...]
    """the numbers of the columns of each; together every column once"""

    def __post_init__(self) -> None:
        pairs = len(self.columns) == len(self.parts) and all(self.columns)
        checks.require(pairs, "columns", f"hold the columns of each of the {len(self.parts)} parts", self.columns)
        numbers = sorted(number for columns in self.columns for number in columns)
        checks.require(numbers == list(range(len(numbers))), "columns", "hold every column once", self.columns)

    def num_outputs(self, event_shape: tuple[int, ...]) -> int:
        """The outputs of all parts."""
        count = sum(map(len, self.columns))
        checks.require(
            event_shape == (count,), "event_shape", f"be ({count},), the columns of the likelihood", event_shape
        )
        return sum(self._outputs())

    def _outputs(self) -> list[int]:
        return [part.num_outputs((len(columns),)) for part, columns in zip(self.parts, self.columns, strict=True)]

    def features(self, x: Any) -> Array:
        """The features of the parts side by side, [B, D] -> [B, F]."""
        each = zip(self.parts, self.columns, strict=True)
        return jnp.concatenate([part.features(x[:, np.array(columns)]) for part, columns in each], axis=-1)

    def distribution(self, outputs: Array, event_shape: tuple[int, ...]) -> Distribution:
        """Shapes: [B, num_outputs] -> over [B, D]."""
        split = jnp.split(outputs, np.cumsum(self._outputs())[:-1], axis=1)
        each = zip(self.parts, split, self.columns, strict=True)
        return compound.Columns(tuple(part.distribution(of, (len(k),)) for part, of, k in each), self.columns)

    def spec(self, event_shape: tuple[int, ...]) -> Spec:
        """Those of the columns."""
        specs: dict[int, Spec] = {}
        for part, columns in zip(self.parts, self.columns, strict=True):
            specs |= dict.fromkeys(columns, part.spec((len(columns),))._replace(shape=()))
        return Spec(event_shape, "real", columns=tuple(specs[k] for k in range(len(specs))))

    @property
    def origin(self) -> tuple[float, ...] | None:
        """Those of the parts, 0 for columns that have none."""
        origin = np.zeros(sum(map(len, self.columns)))
        for part, columns in zip(self.parts, self.columns, strict=True):
            if part.origin is not None:
                origin[list(columns)] = part.origin
        return tuple(origin.tolist()) if origin.any() else None

    def at_origin(self) -> Columns:
        """Every part at its origin."""
        return replace(self, parts=tuple(part.at_origin() for part in self.parts))


@setting
class Missing(Likelihood):
    """A likelihood of the elements of x that are there: NaN marks a missing one.

    The encoder sees 0 in its place, and which are there; the density is that of the others. That is the right ELBO
    where elements are missing at random: whether one is missing may depend on the others, but not on its own value.

    References: Rubin 1976, Inference and missing data; Mattei and Frellsen 2019, MIWAE.
    """

    base: chosen_by_name(Likelihood)  # type: ignore[valid-type]
    """the likelihood of an example without missing elements"""

    def num_outputs(self, event_shape: tuple[int, ...]) -> int:
        """Those of the base."""
        return int(self.base.num_outputs(event_shape))

    def features(self, x: Any) -> Array:
        """The features of the base, 0 where there are none, and 1 where an element is there, along the last axis."""
        features = self.base.features(x)
        known = jnp.asarray(~np.isnan(x) if isinstance(x, np.ndarray) else ~jnp.isnan(x), features.dtype)
        return jnp.concatenate([jnp.nan_to_num(features), known], axis=-1)

    def distribution(self, outputs: Array, event_shape: tuple[int, ...]) -> Distribution:
        """Shapes: as of the base."""
        return compound.Missing(self.base.distribution(outputs, event_shape))

    def spec(self, event_shape: tuple[int, ...]) -> Spec:
        """That of the base, or NaN."""
        spec: Spec = self.base.spec(event_shape)
        return spec._replace(missing=True, columns=tuple(column._replace(missing=True) for column in spec.columns))

    @property
    def origin(self) -> tuple[float, ...] | None:
        """That of the base."""
        return self.base.origin  # type: ignore[no-any-return]

    def at_origin(self) -> Missing:
        """The base at its origin."""
        return replace(self, base=self.base.at_origin())

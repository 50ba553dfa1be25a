"""Settings: frozen dataclasses that check themselves and go to JSON and back. They hold no arrays.

`Architecture` decides shapes and so is static and hashable; `Training` says how to fit, `Sweep` what is varied;
`Config` is what a run folder records, enough to build its models again.
"""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from cvae import checks
from cvae.conditions import Condition, Image, Mixed, Nothing
from cvae.likelihoods import Bernoulli, Likelihood

T = TypeVar("T")


@dataclass(frozen=True)
class Architecture:
    """What decides the shapes of a conditional VAE; the defaults are the article's, without its condition.

    Args:
        event_shape: shape of one example x, a picture (H, W, C) or a row (D,).
        condition: what the model is told about x; `Nothing()` makes a plain VAE.
        latent_size: number of latent dimensions Z, of all layers together; 0 makes the deterministic network p(x | c).
        hidden: widths of the encoder's layers; the decoder has the same, in reverse order.
        body: "plain" ReLU layers; "residual": a trunk as wide as a network's first layer, and for each of `hidden` a
            pre-norm GELU block of that inner width; or "convolutional", for pictures: `hidden` names the channels of
            every resolution, each half as high and wide as the one before and one residual block of 3x3 convolutions
            deep, and, last, the width of the dense layer.
        conditioning: how the condition enters: "concat" beside the input of the first layer, "concat_all" beside
            that of every layer, or "film", which scales and shifts the outputs of every layer. A convolutional body
            has one such layer in a network, the dense one; what an image condition shows, and its mask, enter as
            channels besides, whatever is said here.
        prior: "standard", N(0, I), or "learned", a network p(z | c).
        likelihood: the family of p(x | z, c).
        latent_layers: layers of latents, of equal size, each given those above it; see `distributions.Ladder`.
        guess: a recurrent connection: the learned prior is also given a guess of x, the mean of a deterministic
            network p(x | c) of its own, whose parameters are called "guess".

    Raises:
        ValueError: a size is not a whole number of at least 1, or there is none; a choice is unknown; an image
            condition has another shape than x; a prior is learned from nothing, or a guess told to no learned prior; x
            of a convolutional body is no picture, or one that cannot be halved so often.
    """

    event_shape: tuple[int, ...] = (28, 28, 1)
    condition: Condition = Nothing()
    latent_size: int = 2
    hidden: tuple[int, ...] = (512,)
    body: str = "plain"
    conditioning: str = "concat"
    prior: str = "standard"
    likelihood: Likelihood = Bernoulli()
    latent_layers: int = 1
    guess: bool = False

    def __post_init__(self) -> None:
        # Lists are what JSON and notebooks bring; only tuples hash.
        object.__setattr__(self, "event_shape", checks.several("event_shape", self.event_shape))
        object.__setattr__(self, "hidden", checks.several("hidden", self.hidden))
        checks.require(len(self.event_shape) > 0, "event_shape", "name at least one axis", "()")
        checks.require(len(self.hidden) > 0, "hidden", "name at least one width", "()")
        for name in ("event_shape", "hidden"):
            sizes = (checks.whole_number(f"{name}[{i}]", size) for i, size in enumerate(getattr(self, name)))
            object.__setattr__(self, name, tuple(sizes))
        for name, least in (("latent_size", 0), ("latent_layers", 1)):
            object.__setattr__(self, name, checks.whole_number(name, getattr(self, name), least))
        layers = self.latent_layers
        divides = self.latent_size % layers == 0
        checks.require(divides, "latent_size", f"be a multiple of latent_layers, {layers}", self.latent_size)
        given = checks.shown(self.condition)
        checks.require(isinstance(self.condition, Condition), "condition", "be a condition", given)
        checks.one_of("body", self.body, ("plain", "residual", "convolutional"))
        checks.one_of("conditioning", self.conditioning, ("concat", "concat_all", "film"))
        checks.one_of("prior", self.prior, ("standard", "learned"))
        given = checks.shown(self.likelihood)
        checks.require(isinstance(self.likelihood, Likelihood), "likelihood", "be a likelihood", given)
        checks.require(isinstance(self.guess, bool), "guess", "be True or False", checks.shown(self.guess))
        for part in getattr(self.condition, "parts", (self.condition,)):
            if isinstance(part, Image):
                shape = part.event_shape
                checks.require(shape == self.event_shape, "condition", f"be an image of {self.event_shape}", shape)
        unconditional = isinstance(self.condition, Nothing)
        checks.require(
            self.prior == "standard" or not unconditional, "prior", "be standard without a condition", "learned"
        )
        if self.latent_size == 0:
            checks.require(not unconditional, "latent_size", "be at least 1 without a condition", 0)
            rule = "be standard and latent_layers 1 without latents"
            checks.require(self.prior == "standard" and self.latent_layers == 1, "prior", rule, repr(self.prior))
        checks.require(not self.guess or self.prior == "learned", "guess", "be False where no prior is learned", True)
        if self.body == "convolutional":
            self._check_resolutions()

    def _check_resolutions(self) -> None:
        """Refuse what a convolutional body cannot halve."""
        shape, resolutions = self.event_shape, len(self.hidden) - 1
        checks.require(len(shape) == 3, "event_shape", "be a picture (H, W, C) for a convolutional body", shape)
        rule = "name channels and, last, a dense width for a convolutional body"
        checks.require(resolutions > 0, "hidden", rule, self.hidden)
        halved = 2 ** (resolutions - 1)
        rule = f"have a height and a width divisible by {halved} for the {resolutions} resolutions of `hidden`"
        checks.require(shape[0] % halved == 0 and shape[1] % halved == 0, "event_shape", rule, shape)


@dataclass(frozen=True)
class Training:
    """How to fit: the defaults are the article's.

    Args:
        epochs: passes over the training examples, at most.
        batch_size: examples a step.
        learning_rate: Adam's step size, the highest of the schedule.
        schedule: "constant"; "cosine", falling to 0 at the last step; or "warmup_cosine", rising from 0 during the
            first twentieth of the steps before that.
        weight_decay: decoupled (AdamW), on weight matrices only; 0 is Adam.
        clip_norm: the gradient's global norm is cut to this; None leaves it.
        average: decay a step of the moving average of the parameters, which is then what is validated and returned;
            0 is off.
        objective: "elbo", or "iwae", the importance-weighted bound with `num_samples` samples.
        alpha: share of the CVAE's objective, with z from the posterior; the rest is the GSNN's, with z from the prior.
        num_samples: Monte Carlo samples of z an example.
        beta: weight of the KL in the loss; 1 is the ELBO.
        beta_warmup: epochs during which that weight rises from 0, step by step.
        free_bits: nats of KL that every latent dimension may spend unpunished.
        patience: stop when the validation loss has not improved for so many epochs, and return the best; None never
            stops.
        targets: "grey" levels as they are; "dynamic", black or white drawn afresh with the grey level as probability
            each time an example is seen; or "static", drawn once. Whatever is scored is drawn once.
        shift: training pictures are moved by up to so many pixels, each way at random; what is scored is not. A
            condition of the name "shift", `Continuous(2)`, is told how far, and is stored as 0.
        moved: share of the training pictures that `shift` moves.
        omission: probability that a training picture's condition is told without a block of what is seen of it.
        frozen: names of the parts of the parameters that stay as they are, such as "guess".

    Raises:
        ValueError: a setting is out of its range, or two contradict each other.
    """

    epochs: int = 20
    batch_size: int = 50
    learning_rate: float = 1e-3
    schedule: str = "constant"
    weight_decay: float = 0.0
    clip_norm: float | None = None
    average: float = 0.0
    objective: str = "elbo"
    alpha: float = 1.0
    num_samples: int = 1
    beta: float = 1.0
    beta_warmup: int = 0
    free_bits: float = 0.0
    patience: int | None = None
    targets: str = "grey"
    shift: int = 0
    moved: float = 1.0
    omission: float = 0.0
    frozen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "frozen", checks.several("frozen", self.frozen, "names"))
        for i, part in enumerate(self.frozen):
            checks.word(f"frozen[{i}]", part)
        for name, least in (("epochs", 1), ("batch_size", 1), ("num_samples", 1), ("beta_warmup", 0), ("shift", 0)):
            object.__setattr__(self, name, checks.whole_number(name, getattr(self, name), least))
        checks.positive_number("learning_rate", self.learning_rate)
        checks.one_of("schedule", self.schedule, ("constant", "cosine", "warmup_cosine"))
        checks.finite_number("weight_decay", self.weight_decay, least=0)
        if self.clip_norm is not None:
            checks.positive_number("clip_norm", self.clip_norm)
        checks.finite_number("average", self.average, least=0)
        checks.require(self.average < 1, "average", "be below 1", self.average)
        checks.one_of("objective", self.objective, ("elbo", "iwae"))
        checks.positive_number("beta", self.beta)
        checks.finite_number("free_bits", self.free_bits, least=0)
        if self.patience is not None:
            object.__setattr__(self, "patience", checks.whole_number("patience", self.patience))
        checks.one_of("targets", self.targets, ("grey", "dynamic", "static"))
        checks.share("moved", self.moved)
        checks.share("omission", self.omission)
        checks.share("alpha", self.alpha)
        checks.require(self.objective == "elbo" or self.alpha == 1, "alpha", "be 1 with the iwae objective", self.alpha)
        weighs_kl = self.beta != 1 or self.beta_warmup > 0 or self.free_bits > 0
        checks.require(self.objective == "elbo" or not weighs_kl, "objective", "be elbo to weigh the KL", "iwae")


@dataclass(frozen=True)
class Sweep:
    """What the members of a sweep vary: every combination of these is a member, under every model of the config.

    Raises:
        ValueError: an axis is empty, names a value twice, or holds one out of range.
    """

    latent_sizes: tuple[int, ...]
    seeds: tuple[int, ...] = (0,)
    betas: tuple[float, ...] = (1.0,)
    learning_rates: tuple[float, ...] = (1e-3,)

    def __post_init__(self) -> None:
        for field_ in dataclasses.fields(self):
            axis = checks.several(field_.name, getattr(self, field_.name))
            object.__setattr__(self, field_.name, axis)
            checks.require(len(axis) > 0, field_.name, "name at least one value", "none")
        for name, check in (
            ("latent_sizes", checks.whole_number),
            ("seeds", checks.seed),
            ("betas", checks.positive_number),
            ("learning_rates", checks.positive_number),
        ):
            axis = getattr(self, name)
            for i, value in enumerate(axis):
                check(f"{name}[{i}]", value)
            told_apart = {f"{value:.12g}" for value in axis}  # as the names of members do
            checks.require(len(told_apart) == len(axis), name, "name every value once", checks.shown(list(axis)))


@dataclass(frozen=True)
class Config:
    """What a run folder's `config.json` holds: the data set, the seed, the models by name, how they were fitted.

    Raises:
        ValueError: the seed is none, or a model's name is none that a folder can have.
    """

    experiment: str
    dataset: str
    seed: int
    training: Training
    models: dict[str, Architecture] = field(default_factory=dict)
    sweep: Sweep | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", checks.seed("seed", self.seed))
        _check_names("models", self.models)


def _check_names(name: str, models: Iterable[object]) -> None:
    """Refuse a model's name that is none that a folder can have, in one line."""
    for model in models:
        is_name = isinstance(model, str) and re.fullmatch(r"\w[\w .+-]{0,99}", model) is not None
        checks.require(is_name, name, "have names of letters, digits, spaces and _.+-", checks.shown(model))


def to_json(config: Any) -> Any:
    """A dataclass as plain dicts, lists and numbers; a condition or likelihood also says its class, as `kind`."""
    if dataclasses.is_dataclass(config):
        kind = {"kind": type(config).__name__} if isinstance(config, Condition | Likelihood) else {}
        return kind | {f.name: to_json(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, dict):
        return {key: to_json(value) for key, value in config.items()}
    if isinstance(config, tuple):
        return [to_json(value) for value in config]
    # Axes of a sweep come from `np.arange`, and JSON knows Python's numbers only.
    return config.item() if isinstance(config, np.generic) else config


def from_json(kind: type[T], data: Any, name: str = "config") -> T:
    """The inverse of `to_json`, strict: no field is unknown, each has its type.

    A field that is not there has its default, if it has one: what was written before a setting existed stays readable.

    Raises:
        ValueError: names the field that does not fit, as a path such as `config.models.cvae.latent_size`.
    """
    config: T = _read(kind, data, name)
    return config


def _read(hint: Any, data: Any, name: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if types.NoneType in args:
            return None if data is None else _read(args[0], data, name)
        choices = {choice.__name__: choice for choice in args}
        kind = data.get("kind") if isinstance(data, dict) else None
        is_choice = isinstance(kind, str) and kind in choices
        checks.require(is_choice, f"{name}.kind", f"be one of {sorted(choices)}", checks.shown(kind))
        return _read(choices[kind], {key: value for key, value in data.items() if key != "kind"}, name)
    if dataclasses.is_dataclass(hint):
        checks.require(isinstance(data, dict), name, "be an object", checks.shown(data))
        hints = get_type_hints(hint)
        wanted = [f.name for f in dataclasses.fields(hint)]
        missing = dataclasses.MISSING
        needed = {f.name for f in dataclasses.fields(hint) if f.default is missing and f.default_factory is missing}
        checks.require(needed <= data.keys() <= set(wanted), name, f"have the fields {wanted}", sorted(map(str, data)))
        fields = {key: _read(hints[key], data[key], f"{name}.{key}") for key in wanted if key in data}
        try:
            if hint is Mixed:
                parts = {part.name: part for part in fields["parts"]}
                checks.require(len(parts) == len(fields["parts"]), "parts", "have a name each", list(parts))
                return Mixed(**parts)
            return hint(**fields)  # type: ignore[operator]
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    if origin is tuple:
        checks.require(isinstance(data, list), name, "be a list", checks.shown(data))
        return tuple(_read(args[0], value, f"{name}[{i}]") for i, value in enumerate(data))
    if origin is dict:
        checks.require(isinstance(data, dict), name, "be an object", checks.shown(data))
        _check_names(name, data)  # before one is part of a message
        return {key: _read(args[1], value, f"{name}.{key}") for key, value in data.items()}
    if hint is float:
        is_number = isinstance(data, (int, float)) and not isinstance(data, bool)
        checks.require(is_number, name, "be a number", checks.shown(data))
        checks.finite_number(name, data)
        return float(data)
    checks.require(type(data) is hint, name, f"be of type {hint.__name__}", checks.shown(data))
    return data

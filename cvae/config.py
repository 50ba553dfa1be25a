"""The settings of a model and of its training: frozen, checked, hashable, JSON both ways. They hold no arrays.

`Architecture` decides shapes, `Training` how to fit, `Sweep` what is varied; `Config` is what a run folder records,
enough to build its models again.
"""

from __future__ import annotations

import re
from dataclasses import field
from typing import Annotated, Any, Literal

import tyro
from pydantic import Field

from cvae import checks
from cvae.conditions import Condition, Image, Unconditional
from cvae.likelihoods import Bernoulli, Likelihood, Missing
from cvae.networks import BODIES
from cvae.schema import Schema
from cvae.settings import Count, CountOrZero, Fraction, NonNegative, Positive, Seed, chosen_by_name, setting

Fixed: Any = tyro.conf.Fixed  # a field that the data decide, and no option of a command
Sizes = Annotated[tuple[Count, ...], Field(min_length=1)]


@setting
class Architecture:
    """What decides the shapes of a conditional VAE; the defaults are those of Kristiadi 2016, without the condition."""

    event_shape: Annotated[Sizes, Fixed] = (28, 28, 1)
    """shape of one example x, an image (H, W, C) or a row (D,)"""
    condition: Annotated[chosen_by_name(Condition), Fixed] = Unconditional()  # type: ignore[valid-type]
    """what the model is conditioned on"""
    latent_size: CountOrZero = 2
    """latent dimensions, of all layers together; 0 is the deterministic network p(x | c)"""
    hidden: Sizes = (512,)
    """widths of the encoder's layers, in reverse those of the decoder; of a convolutional body the channels of every
    resolution and, last, the width of its dense layer"""
    body: str = "mlp"
    """network: mlp (ReLU layers), residual (pre-norm GELU blocks as wide inside as hidden) or convolutional"""
    conditioning: Literal["concat", "concat_all", "film"] = "concat"
    """how the condition enters: beside the input of the first layer, of every layer, or as scale and shift of every
    layer's outputs"""
    prior: Literal["standard", "learned"] = "standard"
    """N(0, I), or a network p(z | c)"""
    likelihood: Annotated[chosen_by_name(Likelihood), Fixed] = Bernoulli()  # type: ignore[valid-type]
    """the family of p(x | z, c)"""
    latent_layers: Count = 1
    """layers of a hierarchy of latents (ladder), of equal size"""
    guess: bool = False
    """recurrent connection: the learned prior also sees the mean of a deterministic network p(x | c)"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """of the factors of matrix products and convolutions; parameters, sums and likelihoods are in float32"""
    schema: Annotated[Schema | None, tyro.conf.Suppress] = None
    """the columns of the table that x and c come from; None for arrays"""

    def __post_init__(self) -> None:
        checks.one_of("body", self.body, BODIES)
        rule = f"be a multiple of latent_layers ({self.latent_layers})"
        checks.require(self.latent_size % self.latent_layers == 0, "latent_size", rule, self.latent_size)
        for part in parts_of(self.condition):
            if isinstance(part, Image):
                rule = f"be an image of x's shape {self.event_shape}"
                checks.require(part.event_shape == self.event_shape, "condition", rule, part.event_shape)
                rule = "be other than Missing where c holds a part of x (mark that as missing, without an Image)"
                checks.require(not isinstance(self.likelihood, Missing), "likelihood", rule, "Missing")
        if self.schema is not None:
            count = len(self.schema.modelled)
            rule = f"be ({count},), the modelled columns of the schema"
            checks.require(self.event_shape == (count,), "event_shape", rule, self.event_shape)
        unconditional = not self.condition.spec
        learned = self.prior == "learned"
        checks.require(
            not (learned and unconditional), "prior", "be standard for a model without a condition", "learned"
        )
        checks.require(learned or not self.guess, "guess", "be False unless the prior is learned", True)
        if self.latent_size == 0:
            checks.require(not unconditional, "latent_size", "be at least 1 without a condition", 0)
            checks.require(not learned, "prior", "be standard where latent_size is 0", self.prior)
            checks.require(self.latent_layers == 1, "latent_layers", "be 1 where latent_size is 0", self.latent_layers)
        BODIES[self.body].check(self)


@setting
class Training:
    """How to fit; the defaults are those of Kristiadi 2016."""

    epochs: Count = 20
    """passes over the training examples, at most"""
    batch_size: Count = 50
    """examples per step"""
    learning_rate: Positive = 1e-3
    """Adam's step size, the highest of the schedule"""
    schedule: Literal["constant", "cosine", "warmup_cosine"] = "constant"
    """cosine falls to 0 at the last step; warmup_cosine first rises from 0 during a twentieth of the steps"""
    weight_decay: NonNegative = 0.0
    """decoupled (AdamW), on weight matrices only"""
    clip_norm: Positive | None = None
    """largest global norm of a gradient"""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """decay per step of the moving average of the parameters, which is validated and returned; 0 is off"""
    objective: Literal["elbo", "iwae"] = "elbo"
    """iwae is the importance-weighted bound with num_samples samples; validation is scored by the ELBO with either"""
    hybrid_weight: Fraction = 1.0
    """weight of the CVAE's objective; the rest is the GSNN's, with z from the prior"""
    num_samples: Count = 1
    """Monte Carlo samples of z per example"""
    beta: Positive = 1.0
    """weight of the KL in the loss; 1 is the ELBO"""
    beta_warmup: CountOrZero = 0
    """epochs during which that weight rises from 0, step by step"""
    free_bits: NonNegative = 0.0
    """nats of KL that every latent dimension may spend without cost"""
    patience: Count | None = None
    """stop after so many epochs without a better validation loss, and return the best; None never stops"""
    binarization: Literal["none", "dynamic", "static"] = "none"
    """pixels drawn 0 or 1 with their grey level as probability, anew each time an example is used, or once; validation
    pixels are drawn once"""
    shift: CountOrZero = 0
    """training images are moved by up to so many pixels each way; a condition named "shift" is given how far"""
    shift_prob: Fraction = 1.0
    """probability that a training image is moved"""
    drop_block_prob: Fraction = 0.0
    """probability that a block of what is observed is left out of a training example's condition"""
    hide_prob: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """probability that an element of x is hidden in training, as if missing: so that it can be imputed later"""
    frozen: tuple[str, ...] = ()
    """names of parts of the parameters that are not trained, such as guess"""

    def __post_init__(self) -> None:
        weighted = (self.beta, self.beta_warmup, self.free_bits, self.hybrid_weight) != (1, 0, 0, 1)
        rule = "be elbo where beta, beta_warmup, free_bits or hybrid_weight is set"
        checks.require(self.objective == "elbo" or not weighted, "objective", rule, "iwae")


@setting
class Sweep:
    """What the models of a sweep vary; every combination is one."""

    latent_sizes: Sizes = (2,)
    """numbers of latent dimensions"""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    """random seeds, over which means and spreads are taken"""
    betas: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0,)
    """weights of the KL in the loss"""
    learning_rates: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1e-3,)
    """Adam's step sizes"""

    def __post_init__(self) -> None:
        for name in ("latent_sizes", "seeds", "betas", "learning_rates"):
            axis = getattr(self, name)
            distinct = {f"{value:.12g}" for value in axis}  # as in the names of models
            checks.require(len(distinct) == len(axis), name, "have every value once", checks.shown(list(axis)))


@setting
class Config:
    """What a run folder's `config.json` holds: the data set, the seed, the models by name, how they were fitted."""

    experiment: str
    """name of the experiment's module"""
    dataset: str
    """name of the data set"""
    seed: Seed
    """source of all randomness"""
    training: Training
    """how the models are fitted"""
    models: dict[str, Architecture] = field(default_factory=dict)
    """the models by name"""
    sweep: Sweep | None = None
    """what is varied, in a sweep"""

    def __post_init__(self) -> None:
        for name in self.models:
            valid = re.fullmatch(r"\w[\w .+-]{0,99}", name) is not None
            checks.require(valid, "models", "have names of letters, digits, spaces and _.+-", checks.shown(name))


def parts_of(condition: Any) -> tuple[Any, ...]:
    """The conditions that a condition is composed of: itself, unless it is `Mixed`."""
    return getattr(condition, "parts", (condition,))

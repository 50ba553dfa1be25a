"""The contenders of `benchmarks.epoch`: a model of three sizes, trained by this library, PyTorch and Keras.

Each is a function from a size, examples and a batch size to a function that trains one epoch and returns its mean loss,
in nats per example, once the device is idle again. Each imports its framework itself, and runs in a process of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import cvae
from benchmarks.rounds import Examples
from experiments import mnist_quadrants

PIXELS, CLASSES, HIDDEN, LATENTS = 784, 10, 512, 2
LABEL = cvae.Label(CLASSES)


class Size(NamedTuple):
    """A model and how it is trained; `steps` are those of an epoch that is timed."""

    architecture: cvae.Architecture
    batch_size: int
    steps: int
    learning_rate: float = 1e-3


RESIDUAL = mnist_quadrants.RESIDUAL  # the default network of that experiment
SIZES = {
    "article": Size(cvae.Architecture((28, 28, 1), LABEL, LATENTS, (HIDDEN,)), 50, 1100),
    "residual": Size(RESIDUAL.architecture, RESIDUAL.training.batch_size, 200, RESIDUAL.training.learning_rate),
    "convolutional": Size(cvae.Architecture((28, 28, 1), LABEL, 16, (32, 64, 256), body="convolutional"), 100, 20),
}

Train = Callable[[], float]


def cvae_epoch(size: Size, examples: Examples, batch_size: int) -> Train:
    """This library, by the loop over epochs that `cvae.fit` is."""
    import jax

    init_key, train_key = jax.random.split(jax.random.key(0))
    model = cvae.make(size.architecture)
    training = cvae.Training(epochs=2**31 - 1, batch_size=batch_size, learning_rate=size.learning_rate)
    params = jax.jit(model.init)(init_key)
    c = {"label": examples.label} if size.architecture.condition == LABEL else {"image": examples.x}
    epochs = cvae.epochs(model, params, train_key, examples.x, c, training)
    return lambda: next(epochs).history[-1].train.loss


def pytorch_epoch(size: Size, examples: Examples, batch_size: int, *, compiled: bool = False) -> Train:
    """A PyTorch training loop with a fused Adam, which is not the default: data in memory, losses summed on the device.

    The article's model reads its batches from a DataLoader, as tutorials do; the others index tensors, which is faster.
    """
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from benchmarks import torch_models

    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    if cuda:
        # JAX multiplies float32 in TF32 where a GPU has it, PyTorch only with these settings.
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
    torch.manual_seed(0)
    model = torch_models.CVAE(size.architecture).to(device, memory_format=torch.channels_last)
    loss_of = torch.compile(model) if compiled else model
    optimizer = torch.optim.Adam(model.parameters(), lr=size.learning_rate, fused=True)
    x, c = torch_models.inputs(size.architecture, examples.x, examples.label)
    latents, steps = size.architecture.latent_size, len(x) // batch_size
    if size is SIZES["article"]:
        loader = DataLoader(TensorDataset(x, c), batch_size=batch_size, shuffle=True, pin_memory=cuda)
    else:
        loader = None
        x, c = x.to(device), c.to(device)

    def batches() -> Iterator[Any]:
        if loader is not None:
            for x_batch, c_batch in loader:
                yield x_batch.to(device, non_blocking=True), c_batch.to(device, non_blocking=True)
            return
        for rows in torch.randperm(len(x), device=device).split(batch_size):
            yield x[rows], c[rows]

    def train() -> float:
        total = torch.zeros((), device=device)
        for x_batch, c_batch in batches():
            loss = loss_of(x_batch, c_batch, torch.randn(batch_size, latents, device=device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        if cuda:
            torch.cuda.synchronize()
        return float(total) / steps

    return train


def keras_epoch(size: Size, examples: Examples, batch_size: int) -> Train:
    """Keras 3 on JAX, the article's model alone: a model with its own `compute_loss`, fitted to arrays in memory."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras
    from keras import layers, ops

    keras.utils.set_random_seed(0)

    class CVAE(keras.Model):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.encoder = layers.Dense(HIDDEN, activation="relu")  # Glorot's uniform is the default
            self.mean = layers.Dense(LATENTS)
            self.log_var = layers.Dense(LATENTS)
            self.decoder = layers.Dense(HIDDEN, activation="relu")
            self.logits = layers.Dense(PIXELS)
            self.seed = keras.random.SeedGenerator(0)

        def call(self, inputs: Any) -> Any:
            x, c = inputs
            hidden = self.encoder(ops.concatenate([x, c], axis=1))
            mean, log_var = self.mean(hidden), self.log_var(hidden)
            z = mean + ops.exp(0.5 * log_var) * keras.random.normal(ops.shape(mean), seed=self.seed)
            return self.logits(self.decoder(ops.concatenate([z, c], axis=1))), mean, log_var

        def compute_loss(self, x: Any, y: Any, y_pred: Any, *args: Any, **kwargs: Any) -> Any:
            logits, mean, log_var = y_pred
            cross_entropy = ops.sum(ops.binary_crossentropy(x[0], logits, from_logits=True), axis=1)
            kl = 0.5 * ops.sum(ops.square(mean) + ops.exp(log_var) - 1 - log_var, axis=1)
            return ops.mean(cross_entropy + kl)

    x = examples.x.reshape(-1, PIXELS).astype(np.float32) / 255
    c = np.eye(CLASSES, dtype=np.float32)[examples.label]
    model = CVAE()
    adam = keras.optimizers.Adam(size.learning_rate, epsilon=1e-8)
    # Callbacks every ten steps rather than every one: not the default either, and slightly faster.
    model.compile(optimizer=adam, jit_compile=True, steps_per_execution=10)

    def train() -> float:
        # The loss comes out of the same program as the last step's weights, so reading it waits for both.
        history = model.fit((x, c), batch_size=batch_size, shuffle=True, verbose=0)
        return float(history.history["loss"][0])

    return train


EPOCH_OF: dict[str, Callable[[Size, Examples, int], Train]] = {
    "cvae": cvae_epoch,
    "pytorch": pytorch_epoch,
    "pytorch_compiled": partial(pytorch_epoch, compiled=True),
    "keras": keras_epoch,
}


def accelerator(name: str) -> str | None:
    """The kind of GPU that this contender's framework sees; None for a CPU."""
    if name.startswith("pytorch"):
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else None
    import jax

    return None if jax.default_backend() == "cpu" else jax.devices()[0].device_kind

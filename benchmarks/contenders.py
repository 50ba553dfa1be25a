"""The contenders of `benchmarks.epoch`: one model, trained by this library, PyTorch and Keras.

Each is a function from examples and a batch size to a function that trains one epoch and returns its mean loss, in nats
per example, once the device is idle again. Each imports its framework itself, and runs in a process of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import cvae
from benchmarks.rounds import Examples

PIXELS, CLASSES, HIDDEN, LATENTS = 784, 10, 512, 2
LEARNING_RATE = 1e-3

Train = Callable[[], float]


def epoch_flops(examples: int) -> int:
    """Floating-point operations of one epoch's matrix products; a multiplication and an addition are two.

        N * sum over layers i -> o of  2 i o (forward) + 2 i o (weights' gradient) + 2 i o (input's gradient)

    The encoder's first layer needs no gradient of its input, so it counts twice and the others three times.
    """
    first = (PIXELS + CLASSES) * HIDDEN
    others = 2 * HIDDEN * LATENTS + (LATENTS + CLASSES) * HIDDEN + HIDDEN * PIXELS
    return examples * 2 * (2 * first + 3 * others)


def cvae_epoch(examples: Examples, batch_size: int) -> Train:
    """This library, by the loop over epochs that `cvae.fit` is."""
    import jax

    init_key, train_key = jax.random.split(jax.random.key(0))
    model = cvae.make(cvae.Architecture((28, 28, 1), cvae.Label(CLASSES), LATENTS, (HIDDEN,)))
    training = cvae.Training(epochs=2**31 - 1, batch_size=batch_size, learning_rate=LEARNING_RATE)
    params = jax.jit(model.init)(init_key)
    epochs = cvae.epochs(model, params, train_key, examples.x, {"label": examples.label}, training)
    return lambda: next(epochs).history[-1].train.loss


def pytorch_epoch(examples: Examples, batch_size: int, *, fused: bool | None = None) -> Train:
    """A PyTorch training loop: eager, data in memory, losses summed on the device."""
    import torch
    from torch import nn
    from torch.nn import functional
    from torch.utils.data import DataLoader, TensorDataset

    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    if cuda:
        # JAX multiplies float32 in TF32 where a GPU has it, PyTorch only with this setting.
        torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)

    class CVAE(nn.Module):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Linear(PIXELS + CLASSES, HIDDEN)
            self.mean = nn.Linear(HIDDEN, LATENTS)
            self.log_var = nn.Linear(HIDDEN, LATENTS)
            self.decoder = nn.Linear(LATENTS + CLASSES, HIDDEN)
            self.logits = nn.Linear(HIDDEN, PIXELS)
            for layer in self.children():
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

        def forward(self, x: Any, c: Any) -> Any:
            hidden = functional.relu(self.encoder(torch.cat([x, c], dim=1)))
            mean, log_var = self.mean(hidden), self.log_var(hidden)
            z = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
            return self.logits(functional.relu(self.decoder(torch.cat([z, c], dim=1)))), mean, log_var

    def loss_of(x: Any, c: Any) -> Any:
        logits, mean, log_var = model(x, c)
        cross_entropy = functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = 0.5 * torch.sum(mean.square() + log_var.exp() - 1 - log_var)
        return (cross_entropy + kl) / len(x)

    x = torch.from_numpy(examples.x.reshape(-1, PIXELS).astype(np.float32) / 255)
    c = functional.one_hot(torch.from_numpy(examples.label).long(), CLASSES).float()
    loader = DataLoader(TensorDataset(x, c), batch_size=batch_size, shuffle=True, pin_memory=cuda)
    model = CVAE().to(device)
    # `fused` is not the default, and takes a third less time for this model's epoch on a CPU.
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=fused)

    def train() -> float:
        total = torch.zeros((), device=device)
        for x, c in loader:
            loss = loss_of(x.to(device, non_blocking=True), c.to(device, non_blocking=True))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        if cuda:
            torch.cuda.synchronize()
        return float(total) / len(loader)

    return train


def keras_epoch(examples: Examples, batch_size: int) -> Train:
    """Keras 3 on JAX: a model with its own `compute_loss`, fitted to arrays in memory."""
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
    adam = keras.optimizers.Adam(LEARNING_RATE, epsilon=1e-8)
    # Callbacks every ten steps rather than every one: not the default either, and slightly faster.
    model.compile(optimizer=adam, jit_compile=True, steps_per_execution=10)

    def train() -> float:
        # The loss comes out of the same program as the last step's weights, so reading it waits for both.
        history = model.fit((x, c), batch_size=batch_size, shuffle=True, verbose=0)
        return float(history.history["loss"][0])

    return train


EPOCH_OF: dict[str, Callable[[Examples, int], Train]] = {
    "cvae": cvae_epoch,
    "pytorch": pytorch_epoch,
    "pytorch_fused": partial(pytorch_epoch, fused=True),
    "keras": keras_epoch,
}


def matmul_rate(repeats: int = 5) -> float:
    """Floating-point operations per second of a large square float32 product in JAX, the best of several."""
    import jax

    size = 2048 if jax.default_backend() == "cpu" else 8192
    square = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(lambda a: a @ a).lower(square).compile()
    product(square).block_until_ready()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        product(square).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / min(seconds)


def accelerator(name: str) -> str | None:
    """The kind of GPU that this contender's framework sees; None for a CPU."""
    if name.startswith("pytorch"):
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else None
    import jax

    return None if jax.default_backend() == "cpu" else jax.devices()[0].device_kind

"""Networks: the bodies to choose from, and the encoder, prior and decoder that are made of one.

Only this package imports flax. A body is one class (`layers.Body`) and an entry of `BODIES`; a user's own is added by
`cvae.networks.BODIES["mine"] = Mine`.
"""

from cvae.networks.conv import Convolutional
from cvae.networks.latents import Network, Params, decoder, encoder, guess, prior
from cvae.networks.layers import Body, Part
from cvae.networks.mlp import MLP, ResidualMLP

BODIES: dict[str, type[Body]] = {"mlp": MLP, "residual": ResidualMLP, "convolutional": Convolutional}

__all__ = [
    "BODIES", "Body", "Network", "Params", "Part", "decoder", "encoder", "guess", "prior",
]  # fmt: skip

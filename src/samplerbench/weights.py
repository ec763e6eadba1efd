"""What a training leaves, and how weights are read and written.

    losses.csv           the losses that were logged
    model.safetensors    the weights, averaged where the recipe says so
    state.ckpt           how far the training has come; gone once it has ended

The format of the weights holds numbers and nothing that could be executed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from samplerbench.files import write_atomically

if TYPE_CHECKING:
    from torch import nn

WEIGHTS, LOSSES, STATE = "model.safetensors", "losses.csv", "state.ckpt"

Model = TypeVar("Model", bound="nn.Module")


def save(model: nn.Module, path: Path) -> None:
    """Write the weights, so that they are whole or absent."""
    import safetensors.torch  # slow to import, and what looks at folders needs the names only

    write_atomically(path, safetensors.torch.save(model.state_dict()))


def load(model: Model, path: Path) -> Model:
    """Read the weights that `save` wrote into a model built in the same way.

    Args:
        model: with the same network, target and schedule; its weights and data scale are replaced.
        path: of the weights.
    """
    import safetensors.torch

    model.load_state_dict(safetensors.torch.load_file(path))
    return model.float().eval().requires_grad_(False)

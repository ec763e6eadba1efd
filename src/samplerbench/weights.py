"""What a training leaves, and how weights are read and written.

    losses.csv           the losses that were logged
    model.safetensors    the weights, averaged where the recipe says so
    state.ckpt           how far the training has come, after a digest; gone once it has ended

The format of the weights holds numbers and nothing that could be executed. Other numbers would be
weights as well, so the file says which ones were written: a digest of them is in its metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from samplerbench.files import write_atomically

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS, LOSSES, STATE = "model.safetensors", "losses.csv", "state.ckpt"
_DIGEST = "sha256"

Model = TypeVar("Model", bound="nn.Module")


def save(model: nn.Module, path: Path) -> None:
    """Write the weights, so that they are whole or absent."""
    import safetensors.torch  # slow to import, and what looks at folders needs the names only

    tensors = model.state_dict()
    write_atomically(path, safetensors.torch.save(tensors, {_DIGEST: _digest(tensors)}))


def load(model: Model, path: Path) -> Model:
    """Read the weights that `save` wrote into a model built in the same way.

    Args:
        model: with the same network, target and schedule; its weights and data scale are replaced.
        path: of the weights; they may be of somebody who keeps no digest.

    Raises:
        ValueError: the weights are not those that were written; the model is as it was.
    """
    import safetensors

    with safetensors.safe_open(path, "pt") as file:
        names = list(file.keys())
        tensors = dict(zip(names, map(file.get_tensor, names), strict=True))
        written = (file.metadata() or {}).get(_DIGEST)
    if written not in (None, _digest(tensors)):
        raise ValueError("the weights are not those that were written")
    model.load_state_dict(tensors)
    return model.float().eval().requires_grad_(False)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    import torch

    digest = sha256()
    for name, tensor in sorted(tensors.items()):
        numbers = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {numbers.dtype} {list(numbers.shape)}\n".encode())
        digest.update(numbers.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

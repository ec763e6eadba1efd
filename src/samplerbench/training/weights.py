"""What a training leaves, and how weights are read and written.

    losses.csv           the losses that were logged
    model.safetensors    the weights, averaged where the recipe says so
    state.ckpt           how far the training has come, after a digest; gone once it has ended

The format of the weights holds numbers and nothing that could be executed. Other numbers would be
weights as well, so the file says which ones were written: a digest of them is in its metadata, and
one of the losses that go with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from samplerbench.files import write_atomically

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS, LOSSES, STATE = "model.safetensors", "losses.csv", "state.ckpt"
#: One entry for both digests: safetensors writes several in any order, and the same weights are to
#: be the same file.
_DIGESTS = "sha256"

#: A row of the losses: how many steps were made, "train" or "validation", and the loss.
Loss = tuple[int, str, float]

Model = TypeVar("Model", bound="nn.Module")


def save(model: nn.Module, path: Path, losses: bytes | None = None) -> None:
    """Write the weights, so that they are whole or absent.

    Args:
        model: whose weights.
        path: of the file.
        losses: the content of the file of losses that goes with them.
    """
    import safetensors.torch  # slow to import, and what looks at folders needs the names only

    tensors = model.state_dict()
    of_losses = "" if losses is None else sha256(losses).hexdigest()
    about = {_DIGESTS: f"{_digest(tensors)} {of_losses}"}
    write_atomically(path, safetensors.torch.save(tensors, about))


def check_losses(losses: bytes, path: Path) -> None:
    """Refuse losses that are not those that go with weights.

    Args:
        losses: the content of their file.
        path: of the weights.

    Raises:
        ValueError: the weights name others.
    """
    import safetensors

    with safetensors.safe_open(path, "pt") as file:
        _, written = _written(file)
    if written != sha256(losses).hexdigest():
        raise ValueError("the losses are not those of the weights beside them")


def load(model: Model, path: Path) -> Model:
    """Read the weights that `save` wrote into a model built in the same way.

    Args:
        model: with the same network, target and schedule; its weights and data scale are replaced.
        path: of the weights; they may be of somebody who keeps no digest.

    Raises:
        ValueError: the weights are not those that were written, or not all of them are finite; the
            model is as it was.
    """
    import safetensors

    with safetensors.safe_open(path, "pt") as file:
        names = list(file.keys())
        tensors = dict(zip(names, map(file.get_tensor, names), strict=True))
        written, _ = _written(file)
    if written not in ("", _digest(tensors)):
        raise ValueError("the weights are not those that were written")
    if not finite(tensors):
        raise ValueError("the weights are not all finite")
    model.load_state_dict(tensors)
    return model.float().eval().requires_grad_(False)


def finite(tensors: Mapping[str, Tensor]) -> bool:
    """Whether all numbers of the weights are finite."""
    return all(bool(tensor.isfinite().all()) for tensor in tensors.values())


def _written(file: Any) -> tuple[str, str]:
    """The digests of weights and losses that an open file of weights names; empty for none."""
    of_weights, _, of_losses = (file.metadata() or {}).get(_DIGESTS, "").partition(" ")
    return of_weights, of_losses


def _digest(tensors: Mapping[str, Tensor]) -> str:
    import torch

    digest = sha256()
    for name, tensor in sorted(tensors.items()):
        numbers = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {numbers.dtype} {list(numbers.shape)}\n".encode())
        digest.update(numbers.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

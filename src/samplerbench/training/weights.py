"""The files of a training; reading and writing weights.

    losses.csv           the logged losses
    model.safetensors    the weights, averaged if the recipe says so
    state.ckpt           the state of an unfinished training, after a digest; deleted at the end

The safetensors format contains only numbers, no code. Damaged numbers would still be valid weights.
So the metadata of the file has a digest of the weights, a digest of their losses, and the identity
of their training.
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
#: One entry for all metadata: safetensors writes several entries in any order, and the same
#: training must give the same file.
_METADATA = "sha256"

#: A row of the losses: the number of steps so far, "train" or "validation", and the loss.
Loss = tuple[int, str, float]

Model = TypeVar("Model", bound="nn.Module")


def save(model: nn.Module, path: Path, losses: bytes | None = None, training_id: str = "") -> None:
    """Write the weights; after an interruption the file is complete or absent.

    Args:
        model: the model with the weights.
        path: the path of the file.
        losses: the content of the file of losses of this training.
        training_id: the identity of the training.
    """
    import safetensors.torch  # slow to import, and some callers only need the names of files

    tensors = model.state_dict()
    losses_digest = "" if losses is None else sha256(losses).hexdigest()
    metadata = {_METADATA: f"{_digest(tensors)} {losses_digest} {training_id}"}
    write_atomically(path, safetensors.torch.save(tensors, metadata))


def check_losses(losses: bytes, path: Path) -> None:
    """Check that losses belong to weights.

    Args:
        losses: the content of the file of losses.
        path: the path of the weights.

    Raises:
        ValueError: the file of weights has a digest of different losses.
    """
    import safetensors

    with safetensors.safe_open(path, "pt") as file:
        _, losses_digest, _ = _metadata(file)
    if losses_digest != sha256(losses).hexdigest():
        raise ValueError("the losses do not belong to the weights beside them")


def training_of(path: Path) -> str:
    """The identity of the training that wrote a file of weights; empty if it is not in the file."""
    import safetensors

    with safetensors.safe_open(path, "pt") as file:
        return _metadata(file)[2]


def load(model: Model, path: Path) -> Model:
    """Read weights into a model that was built in the same way.

    Args:
        model: a model with the same network, target and schedule; its weights and data scale are
            replaced.
        path: the path of the weights; a file of another program may have no digest.

    Raises:
        ValueError: the weights have changed since they were written, or are not all finite. The
            model is unchanged.
    """
    import safetensors

    with safetensors.safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in list(file.keys())}
        weights_digest, *_ = _metadata(file)
    if weights_digest not in ("", _digest(tensors)):
        raise ValueError("the weights have changed since they were written")
    if not finite(tensors):
        raise ValueError("the weights are not all finite")
    model.load_state_dict(tensors)
    return model.float().eval().requires_grad_(False)


def finite(tensors: Mapping[str, Tensor]) -> bool:
    """Whether all weights are finite."""
    return all(bool(tensor.isfinite().all()) for tensor in tensors.values())


def _metadata(file: Any) -> tuple[str, str, str]:
    """Digests of weights and losses, and the training's identity; empty strings if missing."""
    text: str = (file.metadata() or {}).get(_METADATA, "")
    weights, losses, training_id, *_ = [*text.split(" "), "", ""]
    return weights, losses, training_id


def _digest(tensors: Mapping[str, Tensor]) -> str:
    import torch

    digest = sha256()
    for name, tensor in sorted(tensors.items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {list(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

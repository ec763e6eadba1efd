"""The denoisers of a job: `DENOISERS` by name, their trainings and their origins.

`guided`, `autoguided` and `corrupted` alter another denoiser: the exact or the learned one, by the
key `altered`. The guide of `guided` is a denoiser of another law, the key `guide`; the guide of
`autoguided` is a worse denoiser of the same data, the key `worse`. With altered=learned each guide
is a network that is trained too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

from omegaconf import ListConfig, OmegaConf

from samplerbench.app.config.construct import construct, convert
from samplerbench.app.config.groups import is_typed
from samplerbench.app.job.basis import ALTERED, Basis
from samplerbench.app.job.training import Training, build_training, with_weights, worse_training
from samplerbench.bench.cell import Origin
from samplerbench.core.cuda_graphs import Graphed
from samplerbench.core.models import Corrupted, Denoiser, Guided, Score
from samplerbench.datasets.base import Dataset, finite
from samplerbench.datasets.empirical import Empirical
from samplerbench.errors import InvalidSetting, require
from samplerbench.identity import identity

#: Denoisers that alter another one, with the settings that may be lists.
GRIDS: Mapping[str, Mapping[str, type]] = {
    "guided": {"guidance": float},
    "autoguided": {"guidance": float},
    "corrupted": {"corruption.amplitude": float, "corruption.profile": str},
}

#: Settings that only these denoisers use.
USED_BY: Mapping[str, Sequence[str]] = {
    "guide": ("guided",),
    "guidance": ("guided", "autoguided"),
    "worse": ("autoguided",),
    "corruption": ("corrupted",),
    "altered": tuple(GRIDS),
}

Trainings = Mapping[str, Training]


def build_trainings(base: Basis, kinds: Sequence[str]) -> dict[str, Training]:
    """The trainings of a job: `learned`, and those of guides, by the kind of their denoiser."""
    for key, users in USED_BY.items():
        allowed = f"left out: only denoiser={' or '.join(users)} uses it"
        used = not {*users}.isdisjoint(kinds) or not is_typed(key)
        require(used, key, base.config.get(key), allowed)
    if "learned" not in kinds:
        return {}
    trainings = {"learned": build_training(base)}
    if base.config.get("weights") is not None:
        trainings["learned"] = with_weights(trainings["learned"], Path(str(base.config.weights)))
    if altered(base) == "learned":
        if "guided" in kinds:
            trainings["guided"] = build_training(replace(base, dataset=guide_law(base)))
        if "autoguided" in kinds:
            trainings["autoguided"] = worse_training(base)
    return trainings


def altered(base: Basis) -> str:
    """The name of the denoiser that is altered by `GRIDS`. Earlier configs lack the key."""
    name = base.config.get("altered", ALTERED[0])
    require(name in ALTERED, "altered", name, " or ".join(ALTERED))
    return str(name)


def scores_of(base: Basis, kind: str, trainings: Trainings) -> dict[str, Score]:
    """The denoisers of one of `DENOISERS` by name: several if one of its settings is a list."""
    lists = [_listed(base, key, value_type) for key, value_type in GRIDS.get(kind, {}).items()]
    scores = {}
    for values in product(*lists):
        parts = [text[value] for text, value in zip(lists, values, strict=True) if len(text) > 1]
        scores[" ".join([kind, *parts])] = _on_device(base, _score(base, kind, trainings, values))
    return scores


def _listed(base: Basis, key: str, value_type: type) -> dict[Any, str]:
    """The values of a setting that may be a list, and their short texts."""
    node = OmegaConf.select(base.config, key)
    listed = list(node) if isinstance(node, ListConfig) else [node]
    kind = "number" if value_type is float else "name"
    require(len(listed) > 0, key, listed, f"a {kind}, or a list of {kind}s")
    values = [convert(value, value_type, key) for value in listed]
    require(len(set(values)) == len(values), key, listed, f"different {kind}s")
    short = {value: f"{value:g}" if value_type is float else value for value in values}
    if len(set(short.values())) < len(values):  # equal in six digits
        short = {value: repr(value) for value in values}
    return short


def _score(base: Basis, kind: str, trainings: Trainings, values: Sequence[Any]) -> Score:
    """One of `DENOISERS`; a learned one is not trained yet."""
    if kind == "learned":
        model: Score = trainings["learned"].objective.model
        return model
    if kind == "empirical":
        n, seed = base.plain["n_train"], base.seeds["data_seed"]
        return Empirical(finite(base.dataset.draws(n, "train", seed), "dataset")).oracle(
            base.schedule
        )
    if kind == "pretrained":
        assert base.model is not None
        return base.model
    if kind == "corrupted":
        amplitude, profile = values
        cut = convert(base.config.corruption.cut, float, "corruption.cut")
        direction, dim = str(base.config.corruption.direction), base.dataset.dim
        allowed = f"along: dim={dim} is odd"
        require(direction != "across" or dim % 2 == 0, "corruption.direction", "across", allowed)
        return Corrupted(_altered(base, kind, trainings), amplitude, profile, direction, cut)
    if kind in ("guided", "autoguided"):
        return Guided(_altered(base, kind, trainings), _guide(base, kind, trainings), *values)
    oracle = base.dataset.exact_score(base.schedule)
    if oracle is None:
        reason = f"learned or empirical: {base.choices.get('dataset')} has no exact denoiser"
        raise InvalidSetting("denoiser", kind, reason)
    return oracle


def _on_device(base: Basis, score: Score) -> Score:
    """The denoiser on the job's device, with CUDA graphs if the config says so."""
    score = score.to(base.device)
    if not convert(base.config.graphs, bool, "graphs"):
        return score
    cuda = base.device.type == "cuda"
    require(cuda, "graphs", True, "false: CUDA graphs need device=cuda")
    return Graphed(score) if isinstance(score, Denoiser) else score


def _altered(base: Basis, kind: str, trainings: Trainings) -> Denoiser:
    """The denoiser that one of `GRIDS` alters."""
    if altered(base) == "oracle":
        return _exact(base, "dataset", base.dataset)
    allowed = f"oracle, or learned with denoiser=[learned,{kind}]"
    require("learned" in trainings, "altered", "learned", allowed)
    return _trained(trainings["learned"])


def _guide(base: Basis, kind: str, trainings: Trainings) -> Denoiser:
    """The guide of `guided` or `autoguided`."""
    if kind in trainings:
        return _trained(trainings[kind])
    if kind == "guided":
        return _exact(base, "guide", guide_law(base))
    noise = convert(OmegaConf.select(base.config, "worse.noise"), float, "worse.noise")
    require(0 < noise < float("inf"), "worse.noise", noise, "positive and finite")
    law = base.dataset.noised(noise)
    allowed = "one whose law with more noise is known, a Gaussian mixture; or altered=learned"
    require(law is not None, "dataset", base.choices.get("dataset"), allowed)
    assert law is not None
    return _exact(base, "dataset", law)


def guide_law(base: Basis) -> Dataset:
    """The law of the guide of `guided`."""
    config = base.config
    allowed = "a data set of the same dimension, such as +dataset@guide=gaussian"
    require(config.get("guide") is not None, "guide", None, allowed)
    # each Gaussian twin has its own coordinates, so twins of two laws cannot be mixed
    require(config.get("law") is None, "law", config.get("law"), "null with denoiser=guided")
    guide: Dataset = construct(config.guide, "guide")
    dim = base.dataset.dim
    require(guide.dim == dim, "guide.dim", guide.dim, f"{dim}, as for the data")
    return guide


def _trained(training: Training) -> Denoiser:
    """The model of a training, which must be a denoiser."""
    model = training.objective.model
    allowed = "oracle: the objective makes a score of one noise level, and no denoiser"
    require(isinstance(model, Denoiser), "altered", "learned", allowed)
    assert isinstance(model, Denoiser)
    return model


def _exact(base: Basis, key: str, law: Dataset) -> Denoiser:
    """The exact denoiser of a law, or an error that names its key."""
    oracle = law.oracle(base.schedule)
    if oracle is None:
        raise InvalidSetting(key, type(law).__name__, "one with an exact denoiser")
    return oracle


def make_origin(base: Basis, kind: str, score: Score, trainings: Trainings) -> Origin:
    """The origin of a denoiser of one of `DENOISERS`, for identities."""
    if kind == "learned":
        return Origin(kind, trainings["learned"].id, trainings["learned"].recipe)
    if kind == "empirical":
        return Origin(kind, identity(score), identity(base.plain["n_train"]))
    if kind in GRIDS and altered(base) == "learned":
        return altered_origin(
            kind, score, {name: (one.id, one.recipe) for name, one in trainings.items()}
        )
    if kind in GRIDS:
        return Origin(kind, identity(score), identity(score))
    if kind == "pretrained":
        assert base.model is not None
        weights = identity([base.model.digest(), version("diffusers")])
        return Origin(kind, weights, weights)
    return Origin(kind)


def altered_origin(kind: str, score: Score, made_by: Mapping[str, tuple[str, str]]) -> Origin:
    """The origin of one of `GRIDS` that alters the learned denoiser, by the job's trainings."""
    inner = score.model if isinstance(score, Graphed) else score
    assert isinstance(inner, Guided | Corrupted)
    alteration = [type(inner), inner.settings]
    used = [made_by[name] for name in ("learned", kind) if name in made_by]
    return Origin(kind, *(identity([alteration, [ids[place] for ids in used]]) for place in (0, 1)))

"""Compose the config of a job outside Hydra's main; the functions that yaml files use."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from samplerbench.app.config.construct import construct, construct_grid, read_member
from samplerbench.app.config.folders import (
    conf_directory,
    groups,
    member_files,
    own_directories,
    run_name,
    unknown_member,
)
from samplerbench.errors import InvalidSetting, did_you_mean, related, require

if TYPE_CHECKING:
    from samplerbench.samplers.base import Sampler


def _fidelity(quick: Any, source: Any, *, _root_: DictConfig) -> Any:
    """Our value of an experiment's setting, or the value of its source; `fidelity` chooses."""
    settings = {"quick": quick, "notebook": source, "paper": source}
    if _root_.fidelity not in settings:
        raise InvalidSetting("fidelity", _root_.fidelity, f"one of {', '.join(settings)}")
    value = settings[_root_.fidelity]
    # code that reads the config expects OmegaConf's own lists
    return OmegaConf.create(value) if isinstance(value, list) else value


OmegaConf.register_new_resolver("samplerbench.run_name", run_name, use_cache=True, replace=True)
# the path of a file that is installed with the yaml files
OmegaConf.register_new_resolver(
    "samplerbench.conf", lambda name: str(conf_directory() / name), replace=True
)
OmegaConf.register_new_resolver("fidelity", _fidelity, replace=True)


def value_not_a_name(words: Sequence[str]) -> InvalidSetting | None:
    """The error for the first word whose value for a config group is not a name."""
    for word, group, listed in _choices(words):
        if not all(isinstance(name, str | QuotedString) for name in listed):
            known = ", ".join(member_files(group))
            allowed = f"a name, or for some groups a list of names, of {known}"
            return InvalidSetting(group, word.partition("=")[2], allowed)
    return None


def check_choices(words: Sequence[str]) -> None:
    """Refuse a member that is named twice, and several members of a group that has one.

    Hydra would silently keep one of them, or mix their settings.
    """
    for word, group, listed in _choices(words):
        names, value = list(map(str, listed)), word.partition("=")[2]
        once = len(set(names)) == len(names)
        require(once, group, value, "a list in which each name occurs once")
        fits = len(names) == 1 or group in _groups_with_lists()
        require(fits, group, value, f"one name: a job has one {group}")


@cache
def _groups_with_lists() -> set[str]:
    """The groups of which a job may have several members, such as sampler and metric."""
    config = cast(DictConfig, OmegaConf.load(conf_directory() / "config.yaml"))
    chosen = [one for one in config.defaults if isinstance(one, DictConfig)]
    return {str(k) for one in chosen for k, names in one.items() if isinstance(names, ListConfig)}


def require_different_jobs(words: Iterable[str]) -> None:
    """Refuse a word of a multirun with a value twice: two equal jobs would share one folder."""
    for word, override in _overrides(words):
        if override.is_choice_sweep():
            values = [_spelt_alike(value) for value in cast(ChoiceSweep, override.value()).list]
            allowed = "values for a multirun, each once"
            once = len(set(values)) == len(values)
            require(once, override.key_or_group, word.partition("=")[2], allowed)


def _spelt_alike(value: Any) -> Hashable:
    """One object for all spellings of a value: 8, [8] and 8.0; heun, "heun" and [heun]."""
    if isinstance(value, dict):
        return frozenset((str(key), _spelt_alike(one)) for key, one in value.items())
    if isinstance(value, list):
        parts = tuple(map(_spelt_alike, value))
        return parts[0] if len(parts) == 1 else parts
    if isinstance(value, QuotedString):
        return str(value.text)
    return (bool, value) if isinstance(value, bool) else value  # True == 1


def _overrides(words: Iterable[str]) -> Iterator[tuple[str, Override]]:
    """The words with what Hydra reads in them, without those that it refuses later."""
    for word in words:
        with suppress(HydraException):
            yield word, OverridesParser.create().parse_override(word)


def _choices(words: Sequence[str]) -> Iterator[tuple[str, str, list[Any]]]:
    """The words that choose members of a group, with the group and what one job gets of it."""
    for word, override in _overrides(words):
        group, value = override.key_or_group, override.value()
        if (conf_directory() / group).is_dir():
            for one in value.list if isinstance(value, ChoiceSweep) else [value]:
                yield word, group, one if isinstance(one, list) else [one]


def unknown_key(key: str, words: Sequence[str]) -> InvalidSetting:
    """The error for a dotted key that the config of these words lacks; suggests similar keys."""
    chosen = [word for word in words if word.partition("=")[0] in groups()]
    try:
        config, _ = compose_config(chosen)
    except (HydraException, InvalidSetting):
        config, _ = compose_config([])
    question = did_you_mean(related(key, [*_paths(config), *groups()]))
    allowed = f"left out: there is no such key{question or '; see samplerbench --help'}"
    value = next((w.partition("=")[2] for w in words if w.partition("=")[0] == key), "…")
    return InvalidSetting(key, value, allowed)


def missing_key(error: HydraException, words: Sequence[str]) -> InvalidSetting | None:
    """The error for a key that the config lacks, if that is what Hydra complains about."""
    key = re.match(r"Could not override '([^']+)'", str(error))
    return unknown_key(key[1], words) if key else None


def _paths(node: DictConfig, above: str = "") -> Iterator[str]:
    """All keys of a config, in dotted form."""
    for name in node:
        key = str(name)
        yield f"{above}{key}"
        below = node._get_node(key)
        if isinstance(below, DictConfig) and not below._is_none() and not below._is_missing():
            yield from _paths(below, f"{above}{key}.")


@cache  # parsing takes as long as building a job
def _keys_of_main_job() -> list[str]:
    """The top-level keys of conf/config.yaml."""
    return [str(key) for key in OmegaConf.load(conf_directory() / "config.yaml")]


def check_keys(config: DictConfig) -> None:
    """Refuse a top-level key that no part of a job uses, such as a misspelt one added by `+`."""
    known = {*_keys_of_main_job(), *groups(), "hydra"}
    for key in map(str, config):
        if key not in known:
            paths = (path for path in _paths(config) if path.partition(".")[0] in known)
            allowed = f"left out: no part of a job uses it{did_you_mean(related(key, paths))}"
            raise InvalidSetting(key, config._get_node(key), allowed)


def compose_config(
    words: Sequence[str], settings: Mapping[str, object] | None = None
) -> tuple[DictConfig, dict[str, Any]]:
    """The config of a job with these words, and the chosen member of each group."""
    check_choices(words)
    searched = ",".join(json.dumps(f"file://{folder}") for folder in own_directories())
    own = [f"hydra.searchpath=[{searched}]"] if searched else []
    try:
        with initialize_config_dir(str(conf_directory()), version_base="1.3"):
            config = compose("config", [*own, *words], return_hydra_config=True)
    except (TypeError, ValueError) as error:  # from Hydra: a group's value is not a name
        reason = value_not_a_name(words)
        raise reason or InvalidSetting("config", list(words), str(error)) from error
    except HydraException as error:
        missing = missing_key(error, words)
        if missing:
            raise missing from error
        raise
    chosen = {str(group): name for group, name in config.hydra.runtime.choices.items()}
    with open_dict(config):
        del config["hydra"]
    for key, value in (settings or {}).items():
        try:
            OmegaConf.update(config, key, _plain(value))
        except OmegaConfBaseException as error:
            raise InvalidSetting(key, value, "a plain value for a key of the config") from error
    return config, chosen


def member_node(group: str, name: str, settings: Mapping[str, object] | None = None) -> DictConfig:
    """The config node of a group's member, with some settings changed."""
    known = member_files(group)
    if name not in known:
        raise unknown_member(group, str(name))
    node = read_member(known[name])
    for key, value in (settings or {}).items():
        try:
            node[key] = _plain(value)
        except OmegaConfBaseException as error:
            raise InvalidSetting(f"{group}.{key}", value, "numbers, words or lists") from error
    return node


def _plain(value: object) -> object:
    """The value of a setting in the library: arrays as numbers or lists, and a path as text."""
    if isinstance(value, Path):
        return str(value)
    to_list = getattr(value, "tolist", None)  # of NumPy, torch and pandas
    return to_list() if callable(to_list) else value


def make_member(group: str, name: str, settings: Mapping[str, object]) -> Any:
    """A member of a group as an object; a setting may be a function.

    If settings of a sampler are lists, return a list with an object for each combination.
    """
    functions = {key: value for key, value in settings.items() if callable(value)}
    node = member_node(group, name, {k: v for k, v in settings.items() if k not in functions})
    for key, function in functions.items():
        known = [str(own) for own in node if own != "_target_"]  # including missing values
        allowed = f"left out: {name} has {', '.join(known)}"
        require(key in known, f"{group}.{key}", function, allowed)
        del node[key]
    if group == "sampler" and any(isinstance(node[key], ListConfig) for key in map(str, node)):
        return construct_grid(node, f"{group}.{name}")
    return construct(node, f"{group}.{name}", **functions)


def sampler_settings(name: str) -> list[Sampler]:
    """The samplers of a yaml: one object for each combination of its lists."""
    return construct_grid(member_node("sampler", name), f"sampler.{name}")

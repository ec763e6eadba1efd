"""The chosen members of a job, in the groups `folders.SEVERAL`, where it can choose several.

The key of a member's node is its name: `config.sampler.ddim`. `folders` finds all members of a
group.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from samplerbench.app.config.construct import construct, construct_grid, parameters, read_member
from samplerbench.app.config.folders import groups, member_files
from samplerbench.errors import require

#: Data sets that consist of the content of a file or a folder.
FROM_PATH = ("file", "image_folder")


def chosen_nodes(config: DictConfig, key: str) -> dict[str, DictConfig]:
    """The nodes of the chosen members of a group that can have several or none.

    A member's name is part of file names, so it must not contain a path. Settings that an
    experiment has for members that are not chosen are left out.
    """
    group = config.get(key) or OmegaConf.create({})
    require(isinstance(group, DictConfig), key, group, f"members of conf/{key}/, each by its name")
    for name in group:
        plain = isinstance(name, str) and re.fullmatch(r"\w[\w.+-]{0,49}", name)
        require(bool(plain), key, name, "a name of letters, digits and _ . + -, at most 50 of them")
    idle = _not_chosen(group, key)
    return {str(name): node for name, node in group.items() if name not in idle}


def _not_chosen(group: DictConfig, key: str) -> set[str]:
    """The names that have settings but no `_target_`, since these members are not chosen.

    If a user removes a member of an experiment, its settings in the experiment have no effect. On
    the command line such settings are an error, and so are settings of unknown members.
    """
    idle = {
        str(name)
        for name, node in group.items()
        if isinstance(node, DictConfig) and "_target_" not in node
    }
    hydra = GlobalHydra.instance()
    if not idle or not hydra.is_initialized():  # a stored config was checked when it ran
        return idle
    known = hydra.config_loader().get_group_options(key)
    chosen = ",".join(str(name) for name in group if name not in idle)
    for name in sorted(idle):
        allowed = f"left out: {name} is not in {key}=[{chosen}]"
        fine = name in known and not is_typed(f"{key}.{name}")
        require(fine, f"{key}.{name}", group[name], allowed)
    return idle


def is_typed(key: str) -> bool:
    """Whether the key, or one below it, was typed on the command line of this job."""
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    return any(re.match(rf"\+*{re.escape(key)}[.=]", word) for word in words)


def drop_settings_of_replaced(config: DictConfig) -> None:
    """Delete the settings of an experiment for members that the command line replaces.

    In `experiment=digits level_law=uniform_time` the experiment's `level_law.mean` is a setting of
    its own level law. Settings that the new member has too keep the experiment's value, and typed
    settings and those of the member's own yaml stay: if the member lacks them, they are refused.
    """
    choices = HydraConfig.get().runtime.choices
    typed = {word.partition("=")[0].lstrip("+") for word in HydraConfig.get().overrides.task}
    for group in groups():
        node, path = config.get(group), member_files(group).get(str(choices.get(group)))
        if group not in typed or path is None or not isinstance(node, DictConfig):
            continue
        if "_target_" not in node:  # of the groups with several members see `chosen_nodes`
            continue
        own = {*map(str, read_member(path)), *parameters(node, group)}
        for name in [str(name) for name in node if str(name) not in own]:
            if not is_typed(f"{group}.{name}"):
                with open_dict(node):
                    del node[name]


def title_of_data(name: str, settings: Mapping[str, Any]) -> str:
    """The name of a data set for readers; for `FROM_PATH`, the name of its file or folder."""
    path = settings.get("path") if name in FROM_PATH else None
    return Path(str(path)).name or name if path else name


def samplers_of(config: DictConfig) -> Iterator[tuple[str, Any]]:
    """The samplers of a config with all their settings, by name."""
    for name, node in chosen_nodes(config, "sampler").items():
        for sampler in construct_grid(node, f"sampler.{name}"):
            yield name, sampler


def chosen_members(config: DictConfig, key: str) -> dict[str, Any]:
    """The chosen members, as objects, of a group that can have several or none."""
    return {
        name: construct(node, f"{key}.{name}") for name, node in chosen_nodes(config, key).items()
    }

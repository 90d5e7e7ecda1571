"""What `config.json` of a release says of its encoders, all that opening one reads.

The rest of a run's configuration stands there for people. It is not read, so that a release opens
whatever becomes of keys that only training knows.
"""

import copy
from pathlib import Path
from typing import Any

from pretrain.config import PretrainConfig
from recaption.common.config import ConfigError, from_dict, to_dict

#: Of what is read; releases without a number are of the first. Whoever renames or drops one of
#: those keys, or lets one mean something else, raises it and has the older ones read here.
FORMAT = 1
_READ = ("model", "objective")
_READ_OF_DATA = ("captions", "image")


def whole_tree(config: PretrainConfig) -> dict[str, Any]:
    """All of a run's configuration, as a release's `config.json` holds it."""
    return {"format": FORMAT, **to_dict(config)}


def encoders_tree(config: PretrainConfig) -> dict[str, Any]:
    """Only what is read, which names no place where anything lay."""
    model = copy.deepcopy(config.model)
    network = model.image.hierarchical.superpixels.spixelfcn
    network.weights = Path(network.weights).name
    tree = to_dict(config)
    encoders = {"format": FORMAT, "model": to_dict(model), "objective": tree["objective"]}
    return encoders | {"data": {name: tree["data"][name] for name in _READ_OF_DATA}}


def read_release_config(tree: Any, where: str) -> PretrainConfig:
    """The configuration of a release's encoders; of training and its data, nothing but defaults.

    Args:
        tree: of `whole_tree` or `encoders_tree`, by this version or an older one.
        where: names it, in errors.

    Raises:
        ConfigError: it is of a newer format, says nothing of a model, or something that models do
            not have.
    """
    if not isinstance(tree, dict):
        raise ConfigError(f"{where} holds no configuration")
    found = tree.get("format", FORMAT)
    if not isinstance(found, int) or found > FORMAT:
        raise ConfigError(
            f"{where} is of format {found} and this version of Canopy reads up to {FORMAT}: "
            "update it"
        )
    if lacking := [name for name in _READ if name not in tree]:
        raise ConfigError(f"{where} says nothing of the {lacking[0]}: it is no release's")
    data = tree.get("data")
    if not isinstance(data, dict):
        raise ConfigError(f"{where} says nothing of the data: it is no release's")
    read: dict[str, Any] = {"run": "released", **{name: tree[name] for name in _READ}}
    read["data"] = {"train": "unknown"} | {k: data[k] for k in _READ_OF_DATA if k in data}
    return from_dict(PretrainConfig, read, where)

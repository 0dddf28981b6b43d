"""Documents of earlier versions, lifted to the present one."""

from __future__ import annotations

from typing import Any

from .schedule import pruning_epochs


def history_to_2(content: dict[str, Any]) -> dict[str, Any]:
    """Version 1 knew SGD, the cosine and magnitude masks alone."""
    return content | {"schema_version": 2, "config": _config_to_2(content["config"])}


def state_to_2(content: dict[str, Any]) -> dict[str, Any]:
    """Version 1 renewed masks at the end of every epoch of the pruning phase, so a checkpoint owes none."""
    config, epoch = content["config"], content["epoch"]
    steps = epoch * max(1, content["train_images"] // config["batch_size"])
    final = epoch >= max(1, pruning_epochs(config["epochs"], config["prune_frac"]))
    regulariser = {"steps": steps, "updated": steps, "final": final}
    return content | {"schema_version": 2, "config": _config_to_2(config), "regulariser": regulariser}


def _config_to_2(config: dict[str, Any]) -> dict[str, Any]:
    return config | {"nm": "asp"}

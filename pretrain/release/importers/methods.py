"""Whose checkpoints can be opened, and written again as theirs."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

from pretrain.models.dual import DualEncoder
from pretrain.objectives.base import Objective
from pretrain.release.importers.caft import caft_computed, caft_keys
from pretrain.release.importers.flair import flair_keys
from pretrain.release.importers.keys import Key
from pretrain.release.importers.open_clip import open_clip_keys
from pretrain.release.importers.openai import openai_computed, openai_keys


class Method(NamedTuple):
    """How a method's checkpoints are read and written."""

    keys: Callable[[DualEncoder, Objective], Iterable[Key]]
    computed: Callable[[DualEncoder], dict[str, Tensor]]
    #: The objective of a checkpoint, by its tensors.
    objective: Callable[[Mapping[str, Tensor]], str]
    captions: str  # how captions are read in evaluation
    resize: str  # how pictures are made square in evaluation
    #: Whether what is computed may be left out.
    is_lenient: bool = False


def _clip_or_siglip(published: Mapping[str, Tensor]) -> str:
    return "siglip" if "logit_bias" in published else "clip"


METHODS = {
    "caft": Method(
        lambda model, _: caft_keys(model), caft_computed, lambda _: "caft", "parts", "squash"
    ),
    "flair": Method(
        lambda model, _: flair_keys(model), lambda _: {}, lambda _: "flair", "diverse", "squash"
    ),
    "open_clip": Method(open_clip_keys, lambda _: {}, _clip_or_siglip, "whole", "shortest"),
    "openai": Method(
        openai_keys, openai_computed, lambda _: "clip", "whole", "shortest", is_lenient=True
    ),
}

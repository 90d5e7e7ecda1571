"""Which published tensor is which of ours: one list, read in both directions."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pretrain.release.finite import check_finite
from recaption.common.config import UserError

State = dict[str, Tensor]


@dataclass(frozen=True)
class Key:
    """One published tensor.

    Args:
        published: its name there.
        own: its name here; several where the published one is their concatenation.
        transposed: it is a matrix that is multiplied from the other side.
        shape: its shape there, where the same numbers have another one here.
        dtype: its type there, where it is another one there; ours is float32.
    """

    published: str
    own: tuple[str, ...]
    transposed: bool = False
    shape: tuple[int, ...] | None = None
    dtype: torch.dtype | None = None


def same(published: str, own: str, names: Iterable[str]) -> Iterator[Key]:
    """Keys that have the same names below a prefix there and one here."""
    for name in names:
        yield Key(f"{published}{name}", (f"{own}{name}",))


def layer(published: str, own: str) -> Iterator[Key]:
    """Weight and bias of a layer."""
    return same(f"{published}.", f"{own}.", ("weight", "bias"))


def text_block_keys(published: str, own: str) -> Iterator[Key]:
    """A block of open_clip's transformer; prefixes end with a dot."""
    for number in (1, 2):
        yield from layer(f"{published}ln_{number}", f"{own}norm{number}")
    for kind in ("weight", "bias"):
        yield Key(f"{published}attn.in_proj_{kind}", (f"{own}attention.qkv.{kind}",))
    yield from layer(f"{published}attn.out_proj", f"{own}attention.project")
    yield from layer(f"{published}mlp.c_fc", f"{own}mlp.fc1")
    yield from layer(f"{published}mlp.c_proj", f"{own}mlp.fc2")


def attention_pooling_keys(published: str, own: str) -> Iterator[Key]:
    """Attention pooling of FLAIR and CAFT, whose three projections are stored as one."""
    for kind in ("weight", "bias"):
        parts = tuple(f"{own}{name}.{kind}" for name in ("query", "key", "value"))
        yield Key(f"{published}attn.in_proj_{kind}", parts)
    yield from layer(f"{published}attn.out_proj", f"{own}project")
    for name in ("query", "key", "value"):
        yield from layer(f"{published}ln_{name[0]}", f"{own}norm_{name}")


def rename(published: Mapping[str, Tensor], keys: Iterable[Key]) -> State:
    """Published tensors, all that `keys` name, under our names; shapes as they were."""
    own: State = {}
    for key in keys:
        tensor = published[key.published]
        tensor = tensor.T if key.transposed else tensor
        pieces = tensor.chunk(len(key.own)) if len(key.own) > 1 else [tensor]
        own |= dict(zip(key.own, pieces, strict=True))
    return own


def import_state(
    published: Mapping[str, Tensor],
    keys: Iterable[Key],
    computed: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
) -> State:
    """Published tensors under our names.

    Args:
        published: what the checkpoint holds.
        keys: what becomes what.
        computed: published tensors that we compute; those of the checkpoint must be equal.
        expected: our state dict, for its names and shapes.

    Raises:
        UserError: a key is missing or unknown, or its tensor is not what the configuration wants,
            or is not finite.
    """
    keys = list(keys)
    known = {key.published for key in keys} | computed.keys()
    for name in sorted(known ^ published.keys()):
        what = "lacks the key" if name in known else "has the unknown key"
        raise UserError(f"the checkpoint {what} {name}: is it of the model that was configured?")
    for name, tensor in computed.items():
        stored = published[name]
        if stored.shape != tensor.shape or not torch.allclose(
            stored.double(), tensor.double(), atol=1e-5
        ):
            raise UserError(f"{name} is not what the configured model computes")
    imported = rename(published, keys)
    missing = sorted(expected.keys() - imported.keys())
    if missing:
        raise UserError(f"the published model has nothing for {missing[0]} of the configured one")
    shapes = {name: key.shape for key in keys for name in key.own}
    for name, tensor in imported.items():
        wanted = expected[name].shape
        if tensor.shape == shapes[name]:
            tensor = tensor.reshape(wanted)
        if tensor.shape != wanted:
            raise UserError(
                f"{name} has the shape {list(tensor.shape)} in the checkpoint and {list(wanted)} "
                "in the configured model: configure the model that was published"
            )
        imported[name] = tensor.to(expected[name].dtype).contiguous()
    check_finite(imported, "the checkpoint", "it is of no use")
    return imported


def export_state(
    own: Mapping[str, Tensor], keys: Iterable[Key], computed: Mapping[str, Tensor]
) -> State:
    """The reverse of `import_state`: our tensors under their published names.

    Raises:
        UserError: a tensor's numbers do not exist in the type that it is published in.
    """
    exported = dict(computed)
    for key in keys:
        tensor = torch.cat([own[name] for name in key.own]) if len(key.own) > 1 else own[key.own[0]]
        tensor = tensor.T if key.transposed else tensor
        tensor = tensor if key.shape is None else tensor.reshape(key.shape)
        exported[key.published] = _as_published(key, tensor).contiguous()
    return exported


def _as_published(key: Key, tensor: Tensor) -> Tensor:
    if key.dtype is None:
        return tensor
    converted = tensor.to(key.dtype)
    if not torch.equal(converted.to(tensor.dtype), tensor):
        raise UserError(
            f"{key.published} is published in {key.dtype}, which would round the weights: they "
            "were trained further; export to a layout in float32"
        )
    return converted

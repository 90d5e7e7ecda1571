"""What encoders give and objectives take: small containers of features, batch first."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass
class _Batched:
    """Tensors, or containers of them, that have the batch as their first axis; None = absent."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The same container with `function` applied to every tensor that is present."""
        return replace(
            self, **{f.name: _map(getattr(self, f.name), function) for f in fields(self)}
        )

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of the plain tensors that are present, in the order of the fields."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                yield field.name, value

    def __getitem__(self, index: slice | Tensor) -> Self:
        """Some samples of the batch."""
        return self.map(lambda tensor: tensor[index])

    def __len__(self) -> int:
        """Number of samples."""
        return len(next(tensor for _, tensor in self))

    def to(self, *args: Any, **kwargs: Any) -> Self:
        return self.map(lambda tensor: tensor.to(*args, **kwargs))

    def detach(self) -> Self:
        return self.map(Tensor.detach)

    @classmethod
    def concatenate(cls, parts: "Sequence[Self]") -> Self:
        """Joins batches; a field is absent if it is absent in the first."""
        return cls(
            **{f.name: _concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)}
        )


def _map(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, _Batched):
        return value.map(function)
    if isinstance(value, list):
        return [_map(item, function) for item in value]
    return value


def _concatenate(values: list[Any]) -> Any:
    if isinstance(values[0], Tensor):
        return torch.cat(values)
    if isinstance(values[0], _Batched):
        return type(values[0]).concatenate(values)
    if isinstance(values[0], list):
        return [_concatenate(list(items)) for items in zip(*values, strict=True)]
    return values[0]


@dataclass
class SegmentHierarchy(_Batched):
    """Which pixel belongs to which segment, from superpixels up to the coarsest tokens."""

    labels: Tensor
    """(B, H, W) int64: superpixel (or patch) of each pixel, below N_0."""
    assignments: list[Tensor]
    """One per pooling, (B, N_l, N_{l+1}): shares of finer tokens in coarser ones, rows sum to 1."""

    @property
    def num_segments(self) -> list[int]:
        """N_0, N_1, ...: superpixels, and tokens after each pooling; none without poolings."""
        if not self.assignments:
            return []
        return [self.assignments[0].shape[1], *(a.shape[2] for a in self.assignments)]

    def to_pixels(self, relevance: Tensor, level: int) -> Tensor:
        """Spreads a value per token over the image.

        Args:
            relevance: (B, Q, N_level) value of each token.
            level: number of poolings between the superpixels and those tokens (0: superpixels).

        Returns:
            (B, Q, H, W): each pixel's expected value under the soft assignments.
        """
        for assignment in reversed(self.assignments[:level]):
            relevance = relevance @ assignment.transpose(1, 2)
        batch, num_queries, _ = relevance.shape
        index = self.labels.flatten(1).unsqueeze(1).expand(batch, num_queries, -1)
        return relevance.gather(2, index).unflatten(2, self.labels.shape[1:])

    def segments(self, level: int) -> Tensor:
        """(B, H, W) int64: the likeliest token of each pixel after `level` poolings."""
        owner: Tensor | None = None
        for assignment in self.assignments[:level]:
            owner = assignment if owner is None else owner @ assignment
        if owner is None:
            return self.labels
        hard = owner.argmax(dim=2)
        return hard.gather(1, self.labels.flatten(1)).view_as(self.labels)


@dataclass
class ImageFeatures(_Batched):
    """Features of B images, of an encoder's own width or projected to the joint width D."""

    pooled: Tensor
    """(B, D) the whole image (a hierarchical encoder's coarse CLS), not normalised."""
    tokens: Tensor | None = None
    """(B, N, D) tokens of the last level."""
    fine_pooled: Tensor | None = None
    """(B, D) fine CLS."""
    fine_tokens: Tensor | None = None
    """(B, M, D) fine tokens (64 as published)."""
    hierarchy: SegmentHierarchy | None = None
    """Segments, only when asked for."""


@dataclass
class TextFeatures(_Batched):
    """Features of the captions of B images, projected to width D, not normalised."""

    whole: Tensor | None = None
    """(B, D) the whole caption."""
    parts: Tensor | None = None
    """(B, K, D) each text of an image."""

"""CAFT's step in the plain way, as the published code takes it: a readable reference.

It reads the parameters of our modules and computes the same numbers without any of the shortcuts:
texts padded to the context length, the query of a text projected again for every image that meets
it, sampling step by step over whole tokens, convolutions in the default memory layout. Superpixels
are ours here too.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.models.blocks import Block, Mlp
from pretrain.models.dual import DualEncoder
from pretrain.models.features import ImageFeatures, TextFeatures
from pretrain.models.image.hierarchical import HierarchicalEncoder
from pretrain.models.text.part import PartTextEncoder
from pretrain.models.text.whole import WholeTextEncoder
from pretrain.objectives.caft import CaftObjective
from pretrain.objectives.candidates import own_and_drawn, owned
from pretrain.ops.attention_pooling import NUM_HEADS, AttentionPooling
from pretrain.ops.graph_pooling import ASSIGNMENT_SCALE, GraphPooling


def plain_loss(
    model: DualEncoder, objective: CaftObjective, images: Tensor, tokens: Tensor, drawn: Tensor
) -> Tensor:
    """Images (B, 3, H, W) normalised, padded texts (B, K, context), (B, B) drawn negatives."""
    image = plain_projected(model, plain_image(model.image, images))
    return plain_objective(objective, image, plain_text(model, tokens), drawn)


def plain_projected(model: DualEncoder, image: ImageFeatures) -> ImageFeatures:
    """Features of the encoder's width -> of the joint width."""
    return ImageFeatures(
        plain_linear(model.project_image, image.pooled),
        plain_linear(model.project_image, image.tokens),
        plain_linear(model.project_fine_image, image.fine_pooled),
        plain_linear(model.project_fine_image, image.fine_tokens),
    )


def plain_text(model: DualEncoder, tokens: Tensor) -> TextFeatures:
    """(B, K, context) padded with 0 -> projected features."""
    parts = plain_parts(model.part_text, tokens)
    whole = plain_whole(model.whole_text, parts)
    return TextFeatures(
        plain_linear(model.project_text, whole), plain_linear(model.project_part_text, parts)
    )


def plain_objective(
    objective: CaftObjective,
    image: ImageFeatures,
    text: TextFeatures,
    drawn: Tensor,
    num_ranks: int = 1,
) -> Tensor:
    """The sum of the three sigmoid terms.

    Texts of further ranks, all of them negatives, are these texts in another order, and so is which
    of them images meet.
    """
    batch, num_texts, _ = text.parts.shape
    fine, coarse = F.normalize(image.fine_pooled, dim=1), F.normalize(image.pooled, dim=1)
    own = torch.eye(batch, device=fine.device)
    loss = fine.new_zeros(())
    for rank in range(num_ranks):
        parts = text.parts.roll(rank, dims=0).flatten(0, 1)
        chosen = own_and_drawn(drawn.roll(rank, dims=0), num_texts)
        queries = parts[chosen]  # (B, B + K - 1, D)
        pooled = plain_attention_pooling(objective.attention_pooling, queries, image.fine_tokens)
        cosine = (F.normalize(pooled, dim=2) * F.normalize(queries, dim=2)).sum(dim=2)
        is_own = owned(chosen, num_texts).float() if rank == 0 else 0.0
        logits = objective.part_scale * cosine + objective.part_bias
        loss = loss - F.logsigmoid((2 * is_own - 1) * logits).sum() / (batch + num_texts - 1)

        is_own = own.repeat_interleave(num_texts, dim=1) if rank == 0 else 0.0
        logits = objective.part_scale * fine @ F.normalize(parts, dim=1).T + objective.part_bias
        loss = loss - F.logsigmoid((2 * is_own - 1) * logits).sum() / (batch * num_texts)

        cosine = coarse @ F.normalize(text.whole.roll(rank, dims=0), dim=1).T
        logits = objective.whole_scale * cosine + objective.whole_bias
        loss = loss - F.logsigmoid((2 * (own if rank == 0 else 0.0) - 1) * logits).sum() / batch
    return loss


def plain_attention_pooling(pooling: AttentionPooling, queries: Tensor, tokens: Tensor) -> Tensor:
    """(B, Q, D) raw texts of each image and (B, M, D) tokens -> (B, Q, D), every pair projected."""
    query, key, value = (
        norm(x).transpose(0, 1)
        for norm, x in (
            (pooling.norm_query, queries),
            (pooling.norm_key, tokens),
            (pooling.norm_value, tokens),
        )
    )
    layers = (pooling.query, pooling.key, pooling.value)
    pooled, _ = F.multi_head_attention_forward(
        query,
        key,
        value,
        embed_dim_to_check=query.shape[2],
        num_heads=NUM_HEADS,
        in_proj_weight=torch.cat([layer.weight for layer in layers]),
        in_proj_bias=torch.cat([layer.bias for layer in layers]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=True,
        dropout_p=0.0,
        out_proj_weight=pooling.project.weight,
        out_proj_bias=pooling.project.bias,
        training=False,
        need_weights=False,
    )
    return pooled.transpose(0, 1)


def plain_parts(encoder: PartTextEncoder, tokens: Tensor) -> Tensor:
    """(B, K, context) padded with 0 -> (B, K, width), every padded place computed."""
    rows = tokens.flatten(0, 1)
    length = rows.shape[1]
    mask = torch.full((length, length), -torch.inf).triu(diagonal=1)
    x = encoder.token_embedding(rows) + encoder.positions[:length]
    for block in encoder.blocks:
        x = plain_block(block, x, mask)
    x = encoder.norm(x)
    ends = x[torch.arange(len(rows)), rows.argmax(dim=1)]
    return ends.unflatten(0, tokens.shape[:2])


def plain_whole(encoder: WholeTextEncoder, parts: Tensor) -> Tensor:
    """(B, K, width) -> (B, width)."""
    parts = parts[:, : encoder.num_parts]
    parts = parts + encoder.adapter_scale * plain_mlp(encoder.adapter, parts)
    x = torch.cat([parts, encoder.cls.expand(len(parts), -1, -1)], dim=1) + encoder.positions
    mask = torch.full((x.shape[1], x.shape[1]), -torch.inf).triu(diagonal=1)
    for block in encoder.blocks:
        x = plain_block(block, x, mask)
    return encoder.norm(x[:, -1])


def plain_block(block: Block, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """(R, N, width) -> (R, N, width)."""
    x = x + plain_attention(block.attention, block.norm1(x), mask)
    return x + plain_mlp(block.mlp, block.norm2(x))


def plain_mlp(mlp: Mlp, x: Tensor) -> Tensor:
    return plain_linear(mlp.fc2, F.gelu(plain_linear(mlp.fc1, x)))


def plain_linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """By torch's default library for products of matrices."""
    return F.linear(x, layer.weight, layer.bias)


def plain_hidden(layers: nn.Sequential, x: Tensor) -> Tensor:
    """Norms, linear layers and activations of a graph pooling."""
    for layer in layers:
        x = plain_linear(layer, x) if isinstance(layer, nn.Linear) else layer(x)
    return x


def plain_attention(attention: nn.Module, x: Tensor, mask: Tensor | None) -> Tensor:
    heads = attention.num_heads
    query, key, value = (
        part.unflatten(2, (heads, -1)).transpose(1, 2)
        for part in plain_linear(attention.qkv, x).chunk(3, dim=2)
    )
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return plain_linear(attention.project, mixed.transpose(1, 2).flatten(2))


def plain_image(encoder: HierarchicalEncoder, images: Tensor) -> ImageFeatures:
    """(B, 3, H, W) -> features of the encoder's width."""
    labels = encoder.superpixels(images)
    *layers, projection = encoder.stem.layers
    features = F.conv2d(nn.Sequential(*layers)(images), projection.weight, projection.bias)
    features = features.permute(0, 2, 3, 1)  # (B, h, w, width)
    positioned = features.flatten(1, 2) + encoder.positions
    cells = labels[:, :: encoder.stride, :: encoder.stride].flatten(1)
    members = F.one_hot(cells, encoder.num_superpixels).transpose(1, 2).to(positioned.dtype)
    counts = members.sum(dim=2, keepdim=True)
    dead = counts.squeeze(2) == 0
    tokens = members @ positioned / counts.clamp(min=1)
    tokens = torch.stack([plain_fill(*rows) for rows in zip(tokens, dead, labels, strict=True)])
    x = torch.cat([encoder.cls.expand(len(images), -1, -1), tokens], dim=1)
    masked: Tensor | None = dead
    fine = x
    for level, stage in enumerate(encoder.stages):
        for block in stage.children():
            x = plain_block(block, x)
        if level == 1:
            fine = encoder.norm_fine(x)
        if level < len(encoder.poolings):
            x = plain_graph_pooling(encoder.poolings[level], x, masked)
            masked = None
    coarse = encoder.norm(x)
    return ImageFeatures(coarse[:, 0], coarse[:, 1:], fine[:, 0], fine[:, 1:])


def plain_fill(tokens: Tensor, dead: Tensor, labels: Tensor) -> Tensor:
    """(S, C) tokens of one image: a dead one takes that of the nearest live superpixel."""
    places = torch.cartesian_prod(*(torch.arange(side) for side in labels.shape)).double()
    sums = places.new_zeros(len(tokens), 2).index_add(0, labels.flatten(), places)
    counts = labels.flatten().bincount(minlength=len(tokens)).clamp(min=1)
    centroids = sums / counts.unsqueeze(1)
    distances = torch.cdist(centroids, centroids).masked_fill(dead, torch.inf)
    return tokens[distances.argmin(dim=1)]


def plain_graph_pooling(pooling: GraphPooling, x: Tensor, masked: Tensor | None) -> Tensor:
    """(B, 1 + N, d) class token and tokens -> (B, 1 + k, d)."""
    cls, tokens = x[:, :1], x[:, 1:]
    index = plain_sampling(tokens, pooling.num_clusters, masked)
    index = index.unsqueeze(2).expand(-1, -1, tokens.shape[2])
    nodes = tokens + plain_attention(pooling.attention, pooling.norm(tokens), None)
    nodes = F.normalize(nodes - nodes.mean(dim=1, keepdim=True) + pooling.bias, dim=2)
    assignment = (ASSIGNMENT_SCALE * nodes @ nodes.gather(1, index).transpose(1, 2)).softmax(dim=2)
    hidden = plain_hidden(pooling.fc1, tokens)
    pooled = assignment.transpose(1, 2) @ hidden / assignment.sum(dim=1).unsqueeze(2)
    pooled = tokens.gather(1, index) + plain_hidden(pooling.fc2, pooled)
    return torch.cat(
        [cls + plain_hidden(pooling.fc2, plain_hidden(pooling.fc1, cls)), pooled], dim=1
    )


@torch.no_grad()
def plain_sampling(tokens: Tensor, num_samples: int, masked: Tensor | None) -> Tensor:
    """Farthest points, one after the other, over whole tokens: (B, k)."""
    points = tokens.double()
    live = torch.ones_like(points[..., :1]) if masked is None else (~masked).double().unsqueeze(2)
    mean = (points * live).sum(dim=1, keepdim=True) / live.sum(dim=1, keepdim=True)
    points = torch.cat([mean, torch.where(live.bool(), points, mean)], dim=1)
    rows = torch.arange(len(points))
    pick = torch.zeros(len(points), dtype=torch.int64)
    nearest = torch.full(points.shape[:2], torch.inf, dtype=torch.float64)
    picks = []
    for _ in range(num_samples):
        distance = (points - points[rows, pick].unsqueeze(1)).square().sum(dim=2)
        nearest = torch.minimum(nearest, distance)
        pick = nearest.argmax(dim=1)
        picks.append(pick)
    return torch.stack(picks, dim=1) - 1

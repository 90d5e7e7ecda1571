"""The Triton kernels of fused_pooling.py. Their arguments are pointers and numbers."""

import triton
import triton.language as tl


@triton.jit
def _shares(query, key, is_token):
    """Softmax over tokens and the zero key, whose score is 0: the tokens' (queries, tokens)."""
    scores = tl.dot(query, tl.trans(key), input_precision="ieee")
    scores = tl.where(is_token[None, :], scores, float("-inf"))
    top = tl.maximum(tl.max(scores, axis=1), 0.0)
    weights = tl.exp(scores - top[:, None])
    return weights / (tl.sum(weights, axis=1) + tl.exp(-top))[:, None]


@triton.jit
def attend(
    queries, chosen, keys, values, mixed, num_queries, num_tokens, temperature,
    HEADS: tl.constexpr, CHANNELS: tl.constexpr, ROWS: tl.constexpr, TOKENS: tl.constexpr,
    PADDED: tl.constexpr,
):  # fmt: skip
    """One image and head, ROWS of its texts: what they mix of the values."""
    image, head = tl.program_id(0) // HEADS, tl.program_id(0) % HEADS
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    token, channel = tl.arange(0, TOKENS), tl.arange(0, PADDED)
    is_row, is_token, is_channel = row < num_queries, token < num_tokens, channel < CHANNELS
    pair = image.to(tl.int64) * num_queries + row
    text = tl.load(chosen + pair, mask=is_row, other=0)
    here = is_row[:, None] & is_channel[None, :]
    place = text[:, None] * (HEADS * CHANNELS) + head * CHANNELS + channel[None, :]
    query = tl.load(queries + place, mask=here, other=0.0) * temperature
    of_image = (image.to(tl.int64) * HEADS + head) * (num_tokens + 1)  # the zero key is the last
    place = (of_image + token)[:, None] * CHANNELS + channel[None, :]
    there = is_token[:, None] & is_channel[None, :]
    key = tl.load(keys + place, mask=there, other=0.0)
    value = tl.load(values + place, mask=there, other=0.0)
    result = tl.dot(_shares(query, key, is_token), value, input_precision="ieee")
    place = pair[:, None] * (HEADS * CHANNELS) + head * CHANNELS + channel[None, :]
    tl.store(mixed + place, result, mask=here)


@triton.jit
def attend_backward(
    queries, chosen, keys, values, grad_mixed, grad_pairs, grad_keys, grad_values,
    num_queries, num_tokens, temperature,
    HEADS: tl.constexpr, CHANNELS: tl.constexpr, ROWS: tl.constexpr, TOKENS: tl.constexpr,
    PADDED: tl.constexpr,
):  # fmt: skip
    """One image and head, all its texts, block by block in a fixed order."""
    image, head = tl.program_id(0) // HEADS, tl.program_id(0) % HEADS
    token, channel = tl.arange(0, TOKENS), tl.arange(0, PADDED)
    is_token, is_channel = token < num_tokens, channel < CHANNELS
    of_image = (image.to(tl.int64) * HEADS + head) * (num_tokens + 1)  # the zero key is the last
    token_place = (of_image + token)[:, None] * CHANNELS + channel[None, :]
    there = is_token[:, None] & is_channel[None, :]
    key = tl.load(keys + token_place, mask=there, other=0.0)
    value = tl.load(values + token_place, mask=there, other=0.0)
    grad_key = tl.zeros((TOKENS, PADDED), dtype=tl.float32)
    grad_value = tl.zeros((TOKENS, PADDED), dtype=tl.float32)
    for start in range(0, num_queries, ROWS):
        row = start + tl.arange(0, ROWS)
        is_row = row < num_queries
        pair = image.to(tl.int64) * num_queries + row
        text = tl.load(chosen + pair, mask=is_row, other=0)
        here = is_row[:, None] & is_channel[None, :]
        column = head * CHANNELS + channel[None, :]
        place = text[:, None] * (HEADS * CHANNELS) + column
        query = tl.load(queries + place, mask=here, other=0.0) * temperature
        pair_place = pair[:, None] * (HEADS * CHANNELS) + column
        grad = tl.load(grad_mixed + pair_place, mask=here, other=0.0)
        shares = _shares(query, key, is_token)
        grad_value += tl.dot(tl.trans(shares), grad, input_precision="ieee")
        grad_shares = tl.dot(grad, tl.trans(value), input_precision="ieee")
        shared = tl.sum(shares * grad_shares, axis=1)
        grad_scores = shares * (grad_shares - shared[:, None])
        grad_key += tl.dot(tl.trans(grad_scores), query, input_precision="ieee")
        grad_query = tl.dot(grad_scores, key, input_precision="ieee") * temperature
        tl.store(grad_pairs + pair_place, grad_query, mask=here)
    tl.store(grad_keys + token_place, grad_key, mask=there)
    tl.store(grad_values + token_place, grad_value, mask=there)


@triton.jit
def pair_loss(
    pooled, directions, chosen, sign, scale, bias, grad_loss, out, grad_pairs, grad_logits,
    num_pairs, width, eps,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BACKWARD: tl.constexpr,
):  # fmt: skip
    """ROWS pairs: cosine, logit, and -log sigmoid of it with its sign.

    The forward writes loss a pair to `out`. The backward overwrites `pooled` by its gradient, and
    writes the gradients of directions and logits a pair, and to `out` the cosine.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    is_row = row < num_pairs
    text = tl.load(chosen + row, mask=is_row, other=0)
    place, text_place = row.to(tl.int64)[:, None] * width, text[:, None] * width
    product = tl.zeros((ROWS,), dtype=tl.float32)
    square = tl.zeros((ROWS,), dtype=tl.float32)
    for start in range(0, width, COLUMNS):
        column = start + tl.arange(0, COLUMNS)[None, :]
        here = is_row[:, None] & (column < width)
        x = tl.load(pooled + place + column, mask=here, other=0.0)
        direction = tl.load(directions + text_place + column, mask=here, other=0.0)
        product += tl.sum(x * direction, axis=1)
        square += tl.sum(x * x, axis=1)
    length = tl.maximum(tl.sqrt(square), eps)
    cosine = product / length
    y = tl.load(sign + row, mask=is_row, other=1.0)
    signed = y * (tl.load(scale) * cosine + tl.load(bias))
    if not BACKWARD:
        # -log sigmoid(s) = max(-s, 0) + log(1 + e^-|s|)
        loss = tl.maximum(-signed, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(signed)))
        tl.store(out + row, loss, mask=is_row)
    else:
        grad_logit = -y * tl.load(grad_loss) / (1.0 + tl.exp(signed))
        tl.store(out + row, cosine, mask=is_row)
        tl.store(grad_logits + row, grad_logit, mask=is_row)
        factor = grad_logit * tl.load(scale) / length
        for start in range(0, width, COLUMNS):
            column = start + tl.arange(0, COLUMNS)[None, :]
            here = is_row[:, None] & (column < width)
            x = tl.load(pooled + place + column, mask=here, other=0.0)
            direction = tl.load(directions + text_place + column, mask=here, other=0.0)
            grad = factor[:, None] * (direction - x * (cosine / length)[:, None])
            tl.store(pooled + place + column, grad, mask=here)
            tl.store(grad_pairs + place + column, factor[:, None] * x, mask=here)

"""The decoder's loss and lessons, and greedy decoding while training."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, LlavaForConditionalGeneration, PreTrainedTokenizerFast
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from tools.train_captioner.captions import IGNORED, EncodedCaptions, pointer_targets
from tools.train_captioner.model import WIDTH
from tools.train_captioner.pool import ATTRIBUTES

#: How many heads of the decoder's last layer look at the thing that a sentence is about.
NUM_LOOKING_HEADS = 3


class DecoderLessons(nn.Module):
    """Asks of every word what its sentence is about: where that is, and what it is.

    To describe the next thing the decoder must find it and then read it off its patch. Taught by
    the few words that name a thing, the two wait long for each other. So some heads of the last
    layer are told to look at the thing's patch, and the last state to tell its attributes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.subject = nn.Linear(WIDTH, sum(ATTRIBUTES.values()))

    def forward(
        self, attention: Tensor, late: Tensor, centers: Tensor, places: Tensor
    ) -> dict[str, Tensor]:
        """Cross-entropies of the patch and of the attributes.

        Args:
            attention: (B, H, T, S) logits of some heads, at the word before each word; the
                sequence's position 0 is ``<s>``, then come the patches.
            late: (B, T, WIDTH) the decoder's last states at the same words.
            centers: (B, P, len(ATTRIBUTES)) as in ``ScenePool``.
            places: (B, T) index of the patch, or ``IGNORED``.
        """
        is_about = places != IGNORED
        looked_at = attention.transpose(1, 2)[is_about].float()  # (N, H, S)
        positions = (places[is_about] + 1)[:, None].expand(-1, looked_at.shape[1])
        where = nn.functional.cross_entropy(looked_at.flatten(0, 1), positions.flatten())
        owners = torch.arange(len(places))[:, None].expand_as(places)[is_about]
        targets = centers[owners, places[is_about]].long()
        told = late[is_about]
        parts = self.subject(told).float().split(list(ATTRIBUTES.values()), dim=-1)
        what = [
            nn.functional.cross_entropy(part, targets[:, index]) for index, part in enumerate(parts)
        ]
        return {"where": where, "what": torch.stack(what).mean()}


def attention_logits(decoder: Any, hidden: Tensor, first: int, num_heads: int) -> Tensor:
    """(B, num_heads, T, S) causal logits of the last layer's first heads, from position ``first``.

    Args:
        decoder: the Llama.
        hidden: (B, S, WIDTH), what enters its last layer.
        first: the queries are those of positions ``first .. S``, T in all.
        num_heads: how many heads.
    """
    layer = decoder.layers[-1]
    head_size = layer.self_attn.head_dim
    states = layer.input_layernorm(hidden)
    weights = [
        projection.weight[: num_heads * head_size]
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj)
    ]
    queries, keys = (
        nn.functional.linear(states, weight).unflatten(-1, (num_heads, head_size)).transpose(1, 2)
        for weight in weights
    )
    length = hidden.shape[1]
    cos, sin = decoder.rotary_emb(hidden, torch.arange(length)[None])
    queries, keys = apply_rotary_pos_emb(queries, keys, cos, sin)
    logits = queries[:, :, first:] @ keys.transpose(-1, -2) / head_size**0.5
    is_future = torch.arange(length) > torch.arange(first, length)[:, None]
    return logits.float().masked_fill(is_future, float("-inf"))


def caption_loss(
    model: LlavaForConditionalGeneration,
    patches: Tensor,
    captions: EncodedCaptions,
    indices: Sequence[int],
    lessons: DecoderLessons | None = None,
    centers: Tensor | None = None,
) -> dict[str, Tensor]:
    """Mean cross-entropy of the captions' tokens, and the losses of ``lessons`` if given.

    The sequence is what vLLM builds from ``<s><image>``: ``<s>``, the patches, the caption.

    Args:
        model: the captioner.
        patches: (B, P, WIDTH) the tower's patches without CLS.
        captions: all captions; ``indices`` (B) names those of the batch.
        lessons: what is asked of every word; ``centers`` (B, G, G, A) as in ``ScenePool``.
    """
    tokens = [torch.tensor(captions.tokens[index]) for index in indices]
    inputs = nn.utils.rnn.pad_sequence(tokens, batch_first=True, padding_value=captions.pad_id)
    targets = nn.utils.rnn.pad_sequence(tokens, batch_first=True, padding_value=IGNORED)
    prompt = _embed_prompt(model, patches, captions.bos_id)
    words = model.model.language_model.embed_tokens(inputs[:, :-1])
    states = model.model.language_model(
        inputs_embeds=torch.cat([prompt, words.to(prompt.dtype)], dim=1),
        use_cache=False,
        output_hidden_states=lessons is not None,
    )
    first = prompt.shape[1] - 1
    logits = model.lm_head(states.last_hidden_state[:, first:])
    loss = nn.functional.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED
    )
    if lessons is None or centers is None:
        return {"caption": loss}
    centers = centers.flatten(1, 2)
    places = pointer_targets(inputs, captions, centers)
    attention = attention_logits(
        model.model.language_model, states.hidden_states[-2], first, NUM_LOOKING_HEADS
    )
    late = states.last_hidden_state[:, first:]
    return {"caption": loss, **lessons(attention, late, centers, places)}


@torch.no_grad()
def decode_greedily(
    model: LlavaForConditionalGeneration,
    patches: Tensor,
    tokenizer: PreTrainedTokenizerFast,
    max_tokens: int = 220,
) -> list[str]:
    """Captions of (B, P, WIDTH) patches."""
    eos_id = int(tokenizer.eos_token_id)
    cache = DynamicCache()
    inputs = _embed_prompt(model, patches, int(tokenizer.bos_token_id))
    is_done = torch.zeros(len(patches), dtype=torch.bool)
    generated = []
    for _ in range(max_tokens):
        hidden = model.model.language_model(
            inputs_embeds=inputs, past_key_values=cache, use_cache=True
        ).last_hidden_state[:, -1]
        tokens = model.lm_head(hidden).argmax(-1).masked_fill(is_done, eos_id)
        generated.append(tokens)
        is_done |= tokens == eos_id
        if is_done.all():
            break
        inputs = model.model.language_model.embed_tokens(tokens)[:, None]
    return tokenizer.batch_decode(torch.stack(generated, dim=1), skip_special_tokens=True)


def _embed_prompt(model: LlavaForConditionalGeneration, patches: Tensor, bos_id: int) -> Tensor:
    """(B, 1 + P, WIDTH): ``<s>`` and the projected patches."""
    projected = model.model.multi_modal_projector(patches)
    start = model.model.language_model.embed_tokens(torch.tensor([[bos_id]]))
    start = start.expand(len(patches), -1, -1)
    return torch.cat([start.to(projected.dtype), projected], dim=1)

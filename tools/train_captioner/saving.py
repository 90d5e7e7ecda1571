"""The model's folder: weights, tokenizer, processor and template, as vLLM reads them."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    CLIPImageProcessor,
    GenerationConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from tools.train_captioner.model import (
    IMAGE_SIZE,
    MEAN,
    PATCH_SIZE,
    ROPE_THETA,
    STD,
    state_for_vllm,
)
from tools.train_captioner.tokenizer import CHAT_TEMPLATE


def save_captioner(
    folder: Path, model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Writes the folder. Weights are stored in half precision: they are read as float32."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.chat_template = CHAT_TEMPLATE
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": IMAGE_SIZE},
            crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
            image_mean=[MEAN] * 3,
            image_std=[STD] * 3,
            do_convert_rgb=True,
        ),
        tokenizer=tokenizer,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
        image_token="<image>",
        num_additional_image_tokens=1,
    )
    processor.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = model.config
    config.architectures = ["LlavaForConditionalGeneration"]
    config.dtype = torch.float32
    config.save_pretrained(folder)
    # transformers 5 writes this inside rope_parameters only, transformers 4 reads it here.
    tree = json.loads((folder / "config.json").read_text())
    tree["text_config"]["rope_theta"] = ROPE_THETA
    (folder / "config.json").write_text(json.dumps(tree, indent=2) + "\n")
    GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=256,
        do_sample=False,
    ).save_pretrained(folder)
    state = state_for_vllm(model, torch.float16)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)

"""vLLM by itself: ``LLM.generate`` over images that are decoded already, nothing else.

python -m tools.bench_recaption.raw FOLDER_OF_TARS MAX_TOKENS 'JSON OF FURTHER ARGUMENTS'
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from recaption.engine.models import TINY_LVLM
from recaption.engine.vllm_settings import prepare_environment, runs_on_cpu
from recaption.images import ImageConfig
from recaption.pictures import read_picture
from recaption.prompts import PromptConfig
from recaption.shards import Shard


def main(folder: Path, max_tokens: int, further: dict[str, Any]) -> dict[str, Any]:
    images: dict[str, Any] = {}
    for path in sorted(folder.glob("*.tar")):
        shard = Shard(path)
        for sample in shard.index.samples:
            decoded = read_picture(shard, sample, ImageConfig()).decoded
            assert decoded is not None, sample.key
            images[sample.key] = decoded.image
        shard.close()
    # Without these a CPU decodes nine times slower, which would be no fair comparison.
    prepare_environment(runs_on_cpu(), is_local=True)
    from vllm import LLM, SamplingParams

    llm = LLM(
        str(TINY_LVLM),
        dtype="float32",
        enforce_eager=True,
        limit_mm_per_prompt={"image": 1},
        **further,
    )
    content = [{"type": "image"}, {"type": "text", "text": PromptConfig().text}]
    prompt = llm.get_tokenizer().apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    sampling = SamplingParams(temperature=0.0, max_tokens=max_tokens)
    requests: Any = [
        {"prompt": prompt, "multi_modal_data": {"image": image}} for image in images.values()
    ]
    llm.generate(requests[:8], sampling, use_tqdm=False)  # what is allocated once
    started = time.perf_counter()
    outputs = llm.generate(requests, sampling, use_tqdm=False)
    seconds = time.perf_counter() - started
    captions = [output.outputs[0].text.strip() for output in outputs]
    return {"seconds": seconds, "captions": dict(zip(images, captions, strict=True))}


if __name__ == "__main__":
    result = main(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))
    Path(sys.argv[4]).write_text(json.dumps(result))

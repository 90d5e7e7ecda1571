"""The two stages of the captioner's training, resumable at every checkpoint.

1. The tower learns from exact labels what each patch shows (``TowerLessons``).
2. The decoder learns to tell it in sentences; the tower goes on learning from both.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import MISSING
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from recaption.common.config import keep_config
from recaption.common.files import atomic_write
from tools.score_captions import CaptionScore, colored_things, score_captions
from tools.train_captioner.captions import batches_by_length, encode_captions
from tools.train_captioner.decoder import DecoderLessons, caption_loss, decode_greedily
from tools.train_captioner.model import (
    IMAGE_SIZE,
    PATCH_SIZE,
    build_model,
    encode_patches,
)
from tools.train_captioner.optim import Optimizers
from tools.train_captioner.pool import ScenePool, draw_pool
from tools.train_captioner.start import initialise_tower
from tools.train_captioner.tokenizer import special_token_ids, train_tokenizer
from tools.train_captioner.tower_lessons import TowerLessons

#: Captions from which the tokenizer learns its words; more bring no new ones.
NUM_TOKENIZER_CAPTIONS = 5000
#: What may change when a training is taken up again.
MAY_CHANGE = ("output", "work", "num_eval_scenes", "log_every", "checkpoint_every", "num_workers")


@dataclass
class TrainCaptionerConfig:
    """How the tiny captioner is trained."""

    output: str = MISSING  #: folder for the trained model
    work: str = MISSING  #: folder for the drawn scenes and the checkpoints
    seed: int = 0  #: seed of the scenes, the weights and the batches
    num_scenes: int = 40000  #: scenes drawn for training
    num_eval_scenes: int = 100  #: unseen scenes captioned at each evaluation
    batch_size: int = 64  #: scenes in a step
    tower_steps: int = 600  #: steps of the first stage
    caption_steps: int = 2500  #: steps of the second stage
    tower_lr: float = 3e-3  #: learning rate of the first stage
    caption_lr: float = 2e-3  #: learning rate of the second stage
    tower_lr_factor: float = 0.4  #: the tower's learning rate in stage two, over the decoder's
    lessons_weight: float = 0.3  #: weight of the tower's lessons in the second stage
    log_every: int = 20  #: steps between two lines of the log
    checkpoint_every: int = 100  #: steps between two checkpoints, and evaluations in stage two
    num_workers: int = 2  #: processes that draw scenes; threads that train
    use_bfloat16: bool = True  #: multiply matrices in bfloat16 (needs a CPU that can)


class CaptionerTraining:
    """Model, data and progress of one training."""

    def __init__(self, config: TrainCaptionerConfig) -> None:
        self.config = config
        self.work = Path(config.work)
        self.work.mkdir(parents=True, exist_ok=True)
        keep_config(config, self.work / "config.yaml", MAY_CHANGE)
        torch.manual_seed(config.seed)
        self.pool = self._load_pool("captioner", config.num_scenes)
        self.eval_pool = self._load_pool("captioner-eval", config.num_eval_scenes)
        self.tokenizer = self._load_tokenizer()
        self.model: LlavaForConditionalGeneration = build_model(
            len(self.tokenizer), special_token_ids(self.tokenizer)
        )
        initialise_tower(self.model, self.pool.images[:500])
        self.lessons = TowerLessons()
        self.decoder_lessons = DecoderLessons()

    def run(self) -> CaptionScore:
        """Both stages, from the newest checkpoint on; returns the last evaluation."""
        self._run_stage("tower", self.config.tower_steps, self.config.tower_lr)
        self._run_stage("captions", self.config.caption_steps, self.config.caption_lr)
        return self.evaluate()

    def evaluate(self) -> CaptionScore:
        """Captions of unseen scenes, decoded greedily, against the scenes' truth."""
        self.model.eval()
        with torch.no_grad():
            _, patches = encode_patches(self.model, torch.from_numpy(self.eval_pool.images))
            written = decode_greedily(self.model, patches, self.tokenizer)
        self.model.train()
        truths = [colored_things(caption) for caption in self.eval_pool.captions.tolist()]
        print(f"  e.g. {written[0]}\n  for  {self.eval_pool.captions[0]}", flush=True)
        return score_captions(written, truths)

    def _run_stage(self, stage: str, num_steps: int, lr: float) -> None:
        config = self.config
        tower: list[nn.Module] = [self.model.model.vision_tower, self.lessons]
        if stage == "captions":
            inner = self.model.model
            decoder = [inner.multi_modal_projector, inner.language_model, self.model.lm_head]
            decoder.append(self.decoder_lessons)
            # A fast tower would pull away from under the decoder what it has learned to read.
            optimizers = [
                Optimizers(decoder, lr, num_steps),
                Optimizers(tower, config.tower_lr_factor * lr, num_steps),
            ]
            self.captions = encode_captions(self.tokenizer, self.pool.captions.tolist())
            lengths = [len(tokens) for tokens in self.captions.tokens]
        else:
            optimizers = [Optimizers(tower, lr, num_steps)]
            lengths = [0] * len(self.pool)
        first = self._load_checkpoint(stage, optimizers)
        batches = batches_by_length(
            lengths, config.batch_size, np.random.default_rng([config.seed, len(stage), num_steps])
        )
        averages: dict[str, float] = {}
        started = time.monotonic()
        for step in range(num_steps):
            indices = next(batches)
            if step < first:  # the same batches again, so that resuming changes nothing
                continue
            terms, notes = self._losses(stage, indices)
            torch.stack(list(terms.values())).sum().backward()
            for optimizer in optimizers:
                optimizer.step(step)
            for name, value in [*notes.items(), *((k, v.item()) for k, v in terms.items())]:
                averages[name] = 0.9 * averages.get(name, value) + 0.1 * value
            done = step + 1
            if done % config.log_every == 0 or done == num_steps:
                rate = (done - first) * config.batch_size / (time.monotonic() - started)
                shown = " ".join(f"{name} {value:.3f}" for name, value in averages.items())
                print(f"{stage} {done}/{num_steps}, {rate:.0f} scenes/s: {shown}", flush=True)
            if done % config.checkpoint_every == 0 or done == num_steps:
                self._save_checkpoint(stage, done, optimizers)
                if stage == "captions":
                    print(f"{stage} {done}/{num_steps}: {self.evaluate()}", flush=True)

    def _losses(
        self, stage: str, indices: np.ndarray
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        pool = self.pool
        with self._autocast():
            early, patches = encode_patches(self.model, torch.from_numpy(pool.images[indices]))
        lessons = (torch.from_numpy(x[indices]) for x in (pool.cells, pool.centers, pool.roles))
        losses, notes = self.lessons(early, patches, *lessons)
        if stage == "tower":
            return losses, notes
        with self._autocast():
            terms = caption_loss(
                self.model,
                patches,
                self.captions,
                indices.tolist(),
                self.decoder_lessons,
                torch.from_numpy(pool.centers[indices]),
            )
        weighted = self.config.lessons_weight * torch.stack(list(losses.values())).sum()
        return {**terms, "lessons": weighted}, notes

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.config.use_bfloat16)

    def _load_pool(self, split: str, num_scenes: int) -> ScenePool:
        path = self.work / f"{split}-{self.config.seed}-{num_scenes}.npz"
        if not path.exists():
            print(f"drawing {num_scenes:,} scenes", flush=True)
            pool = draw_pool(
                num_scenes, self.config.seed, split, IMAGE_SIZE, PATCH_SIZE, self.config.num_workers
            )
            with atomic_write(path) as temporary, temporary.open("wb") as file:
                pool.save(file)
        return ScenePool.load(path)

    def _load_tokenizer(self) -> PreTrainedTokenizerFast:
        """Kept with the checkpoints: they know tokens by their numbers only."""
        folder = self.work / "tokenizer"
        if not folder.exists():
            captions = self.pool.captions[:NUM_TOKENIZER_CAPTIONS].tolist()
            train_tokenizer(captions).save_pretrained(folder)
        return PreTrainedTokenizerFast.from_pretrained(folder)

    def _save_checkpoint(self, stage: str, step: int, optimizers: list[Optimizers]) -> None:
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "lessons": self.lessons.state_dict(),
            "decoder_lessons": self.decoder_lessons.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "step": step,
        }
        with atomic_write(self.work / f"{stage}.pt") as temporary:
            torch.save(state, temporary)

    def _load_checkpoint(self, stage: str, optimizers: list[Optimizers]) -> int:
        """Takes up a stage where its checkpoint left it; returns the steps already made."""
        path = self.work / f"{stage}.pt"
        if not path.exists():
            return 0
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.lessons.load_state_dict(state["lessons"])
        self.decoder_lessons.load_state_dict(state["decoder_lessons"])
        for optimizer, optimizer_state in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(optimizer_state)
        print(f"{stage}: resumed after {state['step']} steps from {path}", flush=True)
        return int(state["step"])

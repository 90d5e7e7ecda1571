"""Training, from top to bottom."""

import math
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from pretrain.checkpoint import CONFIG, TrainState, resume, save_checkpoint
from pretrain.config import PretrainConfig
from pretrain.data.captions import num_texts
from pretrain.data.stream import BatchStream
from pretrain.data.tokens import PackedTexts, Tokenizer
from pretrain.data.transforms import normalise
from pretrain.distributed.engine import Engine
from pretrain.distributed.exchange import Exchange
from pretrain.distributed.ranks import Ranks, joined_ranks
from pretrain.metrics import METRICS, MetricsLog, read_metrics
from pretrain.models.dual import DualEncoder
from pretrain.models.registry import build_model, load_frozen_weights
from pretrain.objectives.base import Objective
from pretrain.objectives.registry import build_objective, check_features
from pretrain.ops.recompute import set_recompute
from pretrain.optim import learning_rate, parameter_groups
from pretrain.preemption import StopRequest
from recaption.common.config import UserError, load_config, print_json, write_config
from recaption.common.progress import format_seconds

USAGE = """usage: torchrun --nproc-per-node N -m pretrain train [CONFIG.yaml ...] [key=value ...]
       python -m pretrain train ...     (on one rank)

--json prints the last row of metrics.jsonl in the last line."""

#: Lines of the log in a row without a finite loss, after which training gives up.
MAX_BAD_LOSSES = 3


class TrainedModule(nn.Module):
    """The encoders and the objective's own parameters: all that is trained and saved.

    Args:
        precision: of the encoders, fp32 or bf16 (autocast); the objective is always in fp32.
    """

    def __init__(self, model: DualEncoder, objective: Objective, precision: str = "fp32") -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.use_bfloat16 = precision == "bf16"
        self.with_tokens = "image.tokens" in objective.needs

    def forward(
        self, images: Tensor, texts: PackedTexts, exchange: Exchange, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Named loss terms of a batch: images (B, 3, H, W) normalised, K texts an image."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.use_bfloat16):
            image_features = self.model.encode_image(images, with_tokens=self.with_tokens)
            text_features = self.model.encode_text(texts)
        terms: dict[str, Tensor] = self.objective(
            image_features.map(Tensor.float), text_features.map(Tensor.float), exchange, generator
        )
        return terms


def main(argv: list[str]) -> None:
    config = load_config(PretrainConfig, argv, USAGE)
    with joined_ranks() as ranks:
        train(config, ranks)
        if ranks.is_first:
            rows = read_metrics(Path(config.run) / METRICS)
            print_json(argv, rows[-1] if rows else {})


def train(config: PretrainConfig, ranks: Ranks) -> None:
    """Trains to ``train.num_steps``, from the newest complete checkpoint of ``config.run`` on."""
    stop_request = StopRequest()
    run = Path(config.run)
    torch.manual_seed(config.seed)  # the same initial weights on every rank

    # ---- data, model, engine
    tokenizer = Tokenizer(config.model.text.part.context_length)
    image_size = config.model.image.size
    stream = BatchStream(config.data, tokenizer, image_size, config.seed, ranks.world_size)
    module = build_module(config).to(ranks.device)
    num_parameters = sum(p.numel() for p in module.parameters() if p.requires_grad)
    engine = Engine(
        module,
        parameter_groups(module, config.optim),
        config.engine,
        config.data.batch_size,
        adam={"betas": tuple(config.optim.betas), "eps": config.optim.eps},
    )
    exchange = Exchange()

    # ---- where an earlier attempt left off
    state = resume(run, config, engine, ranks)
    if state is None:
        load_frozen_weights(module.model, config.model)
        state = TrainState(0, 0, ranks.world_size, {})
    ranks.barrier()  # all have compared their configuration with the run's before it is replaced
    if ranks.is_first:
        run.mkdir(parents=True, exist_ok=True)
        write_config(config, run / CONFIG)
    if state.stream:
        stream.load_state_dict(state.stream)
    log = MetricsLog(run / METRICS, state.step) if ranks.is_first else None
    if ranks.is_first:
        print(_describe_run(config, stream, num_parameters, ranks, state), flush=True)

    # ---- steps
    batches = iter(stream)
    module.train()
    last_saved = state.step
    seconds_waited, num_cut_texts, num_bad_samples, num_bad_losses = 0.0, 0, 0, 0
    window_started, window_step = time.monotonic(), state.step
    for step in range(state.step, config.train.num_steps):
        asked = time.monotonic()
        batch = next(batches).to(ranks.device)
        seconds_waited += time.monotonic() - asked
        num_cut_texts += batch.num_cut_texts
        num_bad_samples += batch.num_bad_samples

        rate = learning_rate(step, config.train.num_steps, config.optim)
        engine.set_learning_rate(rate)
        generator = seed_step(config.seed, step, ranks)
        terms = engine.forward(normalise(batch.images), batch.texts, exchange, generator)
        loss = torch.stack(list(terms.values())).sum()
        engine.backward(loss)
        engine.step()

        state.step = step + 1
        state.num_samples_seen += len(batch.images) * ranks.world_size
        is_last = state.step == config.train.num_steps
        if state.step % config.train.log_every == 0 or is_last:
            num_seen_texts = (state.step - window_step) * (len(batch.texts.offsets) - 1)
            means = ranks.mean(
                {
                    "loss": loss.item(),
                    **{name: term.item() for name, term in terms.items()},
                    "cut_text_share": num_cut_texts / num_seen_texts,
                    "bad_sample_share": num_bad_samples
                    / ((state.step - window_step) * len(batch.images)),
                }
            )
            seconds = time.monotonic() - window_started
            num_samples = (state.step - window_step) * len(batch.images) * ranks.world_size
            row = {
                "step": state.step,
                **means,
                "learning_rate": rate,
                "grad_norm": engine.grad_norm,
                "num_skipped_steps": engine.num_skipped_steps,
                **module.objective.diagnostics(),
                "num_samples_seen": state.num_samples_seen,
                "samples_per_second": num_samples / seconds,
                "data_wait_share": seconds_waited / seconds,
                "seconds": time.time(),
            }
            if log is not None:
                log.write(row)
                print(_describe_step(row, config.train.num_steps, seconds, window_step), flush=True)
            num_bad_losses = 0 if math.isfinite(means["loss"]) else num_bad_losses + 1
            if num_bad_losses == MAX_BAD_LOSSES:
                raise UserError(
                    f"the loss has not been finite since before step {state.step}: try a lower "
                    f"optim.learning_rate or an engine.max_grad_norm, from the last checkpoint on"
                )
            seconds_waited, num_cut_texts, num_bad_samples = 0.0, 0, 0
            window_started, window_step = time.monotonic(), state.step

        stopping = ranks.any(bool(stop_request))
        if state.step % config.train.checkpoint_every == 0 or is_last or stopping:
            state.stream = stream.state_dict()
            save_checkpoint(run, engine, state, ranks, config.train.num_kept_checkpoints)
            last_saved = state.step
        if stopping:
            if ranks.is_first:
                print(
                    f"stopped by {stop_request.signal_name or 'another rank'} after step "
                    f"{last_saved}; the same command goes on from there",
                    flush=True,
                )
            return
    if ranks.is_first:
        print(f"trained to step {state.step}: {run}", flush=True)


def build_module(config: PretrainConfig) -> TrainedModule:
    """What the run trains, with fresh weights, drawn from torch's default generator."""
    model = build_model(config.model)
    set_recompute(model, config.train.recompute_blocks)
    objective = build_objective(config.objective, config.model.embed_dim)
    check_features(objective, model, num_texts(config.data.captions))
    return TrainedModule(model, objective, config.engine.precision)


def seed_step(seed: int, step: int, ranks: Ranks) -> torch.Generator:
    """Seeds dropout, and gives the objective's generator, from the step alone.

    A resumed run draws what an uninterrupted one would have drawn, and no random state needs to
    be saved.
    """
    step_seed = (seed * 1_000_003 + step) * 4096 + ranks.rank
    torch.manual_seed(step_seed)
    return torch.Generator().manual_seed(step_seed)


def _describe_run(
    config: PretrainConfig,
    stream: BatchStream,
    num_parameters: int,
    ranks: Ranks,
    state: TrainState,
) -> str:
    resumed = f", resumed after step {state.step}" if state.step else ""
    return (
        f"{config.run}: {config.objective.name} with {num_parameters / 1e6:.2f} M parameters on "
        f"{stream.num_samples:,} samples; {ranks.world_size} ranks x {config.data.batch_size} "
        f"images, ZeRO stage {config.engine.zero_stage}, {config.engine.precision}, on "
        f"{ranks.device.type}{resumed}"
    )


def _describe_step(row: dict[str, float], num_steps: int, seconds: float, window_step: int) -> str:
    step = int(row["step"])
    left = (num_steps - step) * seconds / (step - window_step)
    return (
        f"step {step:,}/{num_steps:,}  loss {row['loss']:.4f}  "
        f"{row['samples_per_second']:.1f} images/s  {format_seconds(left)} left"
    )

"""Training, from top to bottom."""

from contextlib import ExitStack
from pathlib import Path

import torch

from pretrain.checkpoint import (
    CONFIG,
    TrainState,
    find_checkpoint,
    go_back,
    last_checkpoint,
    load_optimizer,
    load_weights,
    read_state,
    record_rollback,
)
from pretrain.code_history import note_code
from pretrain.config import PretrainConfig
from pretrain.data.stream import BatchStream
from pretrain.data.tokens import Tokenizer
from pretrain.data.transforms import normalise
from pretrain.distributed.engine import Engine
from pretrain.distributed.exchange import Exchange
from pretrain.distributed.launch import (
    describe_attempt,
    is_slurm_step,
    note_that_it_stopped,
)
from pretrain.distributed.microbatch import backpropagate
from pretrain.distributed.ranks import Ranks, joined_ranks
from pretrain.ema import Ema
from pretrain.keys import KeysLog
from pretrain.metrics import METRICS, read_metrics
from pretrain.metrics.run import RunMetrics
from pretrain.models.registry import load_frozen_weights
from pretrain.ops.batch_norm import commit_statistics, discard_statistics
from pretrain.optim import learning_rate, parameter_groups
from pretrain.preemption import StopRequest
from pretrain.run_lock import alone_in
from pretrain.saving import CheckpointSaver
from pretrain.stability import StepWatch
from pretrain.trained_module import build_module
from pretrain.validation import Validation
from recaption.common.config import UserError, load_config, print_json, write_config
from recaption.common.signals import EXIT_UNFINISHED

USAGE = """usage: torchrun --nproc-per-node N -m pretrain train [CONFIG.yaml ...] [key=value ...]
       python -m pretrain train ...     (on one rank)

--json prints the last row of metrics.jsonl in the last line."""


def main(argv: list[str]) -> int:
    config = load_config(PretrainConfig, argv, USAGE)
    with joined_ranks(config.ranks) as ranks, ExitStack() as held:
        if ranks.is_first:
            held.enter_context(alone_in(Path(config.run)))
        if ranks.is_first and is_slurm_step():
            print(describe_attempt(), flush=True)
        is_finished = train(config, ranks)
        if ranks.is_first:
            rows = read_metrics(Path(config.run) / METRICS)
            print_json(argv, rows[-1] if rows else {})
            if not is_finished:
                note_that_it_stopped()
        ranks.barrier()  # not before that is done: srun ends the others with the first that ends
    return 0 if is_finished or not is_slurm_step() else EXIT_UNFINISHED


def train(config: PretrainConfig, ranks: Ranks) -> bool:
    """Trains to ``train.num_steps``, from the newest complete checkpoint of ``config.run`` on.

    Returns:
        whether it came as far as it was to come; not so where a signal stopped it.
    """
    stop_request = StopRequest()
    run = Path(config.run)
    torch.manual_seed(config.seed)  # the same initial weights on every rank

    # ---- where an earlier attempt left off
    state, checkpoint = find_checkpoint(run, config, ranks.world_size)
    ranks.barrier()  # all have compared their configuration with the run's before it is replaced
    if ranks.is_first:
        run.mkdir(parents=True, exist_ok=True)
        write_config(config, run / CONFIG)
        note_code(run, state.step, checkpoint)

    # ---- data, model, engine
    tokenizer = Tokenizer(config.model.text.part.context_length)
    image_size = config.model.image.size
    stream = BatchStream(config.data, tokenizer, image_size, config.seed, ranks.world_size)
    if state.stream:
        stream.load_state_dict(state.stream)
    batches = iter(stream)  # loader workers begin while the model is built
    validation = Validation(config, tokenizer, ranks, stop_request)
    module = build_module(config)
    if checkpoint is None:
        load_frozen_weights(module.model, config.model)
    else:
        load_weights(checkpoint, module)
    module.to(ranks.device)
    num_parameters = sum(p.numel() for p in module.parameters() if p.requires_grad)
    if config.engine.compile:
        module.compile_towers()
    engine = Engine(
        module,
        parameter_groups(module, config.optim),
        config.engine,
        config.data.batch_size,
        adam={"betas": tuple(config.optim.betas), "eps": config.optim.eps},
    )
    ema = Ema(engine.shards, config.engine.ema_decay) if config.engine.ema_decay else None
    if checkpoint is not None:
        load_optimizer(checkpoint, engine, ema)

    # ---- what watches over it
    totals = {
        "num_skipped_steps": state.num_skipped_steps,
        "num_rollbacks": state.num_rollbacks,
    }
    metrics = RunMetrics(config, ranks, state.step, totals, stream.num_ready_batches)
    exchange = Exchange(stopwatch=metrics.stopwatch)
    saver = CheckpointSaver(run, config.train, engine.shards, ema, ranks)
    watch = StepWatch(config.stability)
    keys = KeysLog(run, ranks, state.step) if config.train.write_keys else None
    if ranks.is_first:
        print(_describe_run(config, stream, num_parameters, ranks, state), flush=True)

    # ---- steps
    module.train()
    if validation.is_missing(state.step):  # stopped in the midst of it, or asked for only now
        validation.run(state.step, engine, module, metrics)
    stopping = validation.was_abandoned
    while state.step < config.train.num_steps and not stopping:
        with metrics.watch("data"):
            batch = next(batches)
        images = normalise(batch.images.to(ranks.device, non_blocking=True))
        texts = [
            share.to(ranks.device, non_blocking=True)
            for share in batch.texts.split(config.engine.num_micro_batches)
        ]
        metrics.step(batch, batch.num_bad_samples)

        rate = learning_rate(state.step, config.train.num_steps, config.optim)
        engine.set_learning_rate(rate)
        seed, generator = seed_of_step(config.seed, state.step, ranks)
        with metrics.watch("compute"):
            terms = backpropagate(engine, module, images, texts, exchange, generator, seed)
            accepted = engine.step()
            if accepted:
                commit_statistics(module)
                state.num_updates += 1
                if ema is not None:
                    ema.update(state.num_updates)
            else:
                discard_statistics(module)
                state.num_skipped_steps += 1

        state.step += 1
        state.num_samples_seen += len(batch.images) * ranks.world_size
        if keys is not None:
            keys.write(state.step, batch.keys)
        is_last = state.step == config.train.num_steps
        if state.step % config.train.log_every == 0 or is_last:
            values = {name: term.item() for name, term in terms.items()}
            metrics.window(
                state.step,
                values,
                module.objective.diagnostics(),
                learning_rate=rate,
                grad_norm=engine.grad_norm,
                loss_spike_score=watch.spike_score(sum(values.values())),
                num_skipped_steps=state.num_skipped_steps,
                num_rollbacks=state.num_rollbacks,
                num_samples_seen=state.num_samples_seen,
                checkpoint_seconds_written=saver.seconds_written,
                num_failed_checkpoints=saver.num_failures,
            )

        if watch.must_roll_back(accepted, state.num_rollbacks):
            saver.settle()
            _roll_back(config, state, stream, engine, ema, ranks)
            metrics.rewind(state.step)
            keys = KeysLog(run, ranks, state.step) if config.train.write_keys else None
            continue
        if validation.is_due(state.step):
            validation.run(state.step, engine, module, metrics)
        with metrics.watch("communicate"):
            stopping = ranks.any(bool(stop_request)) or state.step == config.train.stop_at_step
        # Not while steps are skipped: the checkpoint before is the one to go back to.
        is_due = accepted and (
            state.step % config.train.checkpoint_every == 0 or state.step in config.train.keep_steps
        )
        if is_due or is_last or stopping:
            state.stream = stream.state_dict()
            with metrics.saving():
                saver.save(state)
    saver.wait()
    metrics.close()
    is_at_its_end = state.step in (config.train.num_steps, config.train.stop_at_step)
    is_finished = is_at_its_end and not validation.was_abandoned
    if ranks.is_first and (state.step < config.train.num_steps or validation.was_abandoned):
        who = "train.stop_at_step" if is_finished else stop_request.signal_name or "another rank"
        print(
            f"stopped by {who} after step {state.step}; the same command goes on from there",
            flush=True,
        )
    elif ranks.is_first:
        print(f"trained to step {state.step}: {run}", flush=True)
    return is_finished


def _roll_back(
    config: PretrainConfig,
    state: TrainState,
    stream: BatchStream,
    engine: Engine,
    ema: Ema | None,
    ranks: Ranks,
) -> None:
    """Weights and step of the last complete checkpoint; the data goes on from where it is."""
    run = Path(config.run)
    checkpoint = last_checkpoint(run, config)
    if checkpoint is None:
        raise UserError(
            f"the gradient was not finite in the last steps up to {state.step}, and there is no "
            "checkpoint to go back to: try a lower optim.learning_rate or an engine.max_grad_norm"
        )
    before, bad_step = read_state(checkpoint), state.step
    go_back(checkpoint, engine, ema)
    state.step, state.num_updates = before.step, before.num_updates
    state.num_skipped_steps = before.num_skipped_steps
    state.num_samples_seen = before.num_samples_seen
    state.num_rollbacks += 1
    state.stream = stream.state_dict()
    ranks.barrier()
    if ranks.is_first:
        record_rollback(run, state)
        print(
            f"the gradient was not finite in the steps up to {bad_step}: back to the checkpoint of "
            f"step {state.step}, and on with other data (roll-back {state.num_rollbacks})",
            flush=True,
        )


def seed_of_step(seed: int, step: int, ranks: Ranks) -> tuple[int, torch.Generator]:
    """The seed of dropout, and the objective's generator, from the step alone.

    A resumed run draws what an uninterrupted one would have drawn, and no random state needs to
    be saved.
    """
    step_seed = (seed * 1_000_003 + step) * 4096 + ranks.rank
    return step_seed, torch.Generator().manual_seed(step_seed)


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

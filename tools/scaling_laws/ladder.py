"""A ladder: which models are trained on how many samples of how much data, and how.

Of one model on one set the lengths share a trunk at a constant rate: the shortest run keeps the
checkpoint at which it begins to cool down, the next one goes on from there, and so on. Each is the
run that it would be alone, for the price of the longest and of the others' cool-downs.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pretrain.checkpoint import checkpoint_folder
from pretrain.config import PretrainConfig
from pretrain.data.shards import TrainingShards
from pretrain.models.count import count_parameters
from pretrain.plan.accelerators import ACCELERATORS, ASSUMED_MFU
from pretrain.plan.step import build_without_numbers
from recaption.common.config import ConfigError, check_at_least, check_choice, load_config
from slurm.submit import SubmitConfig
from tools.scaling_laws.rules import RulesConfig

#: Keys of a run that are its place in the ladder.
_SET_BY_THE_LADDER = (
    *("run", "seed", "data.train", "data.num_samples"),
    *("train.num_steps", "train.keep_steps", "train.begin_from", "train.stop_at_step"),
    *("optim.schedule", "optim.num_decay_steps"),
)
_BEGIN_FROM = "train.begin_from="


@dataclass
class MethodConfig:
    """A way of training: YAML files and key=value of `pretrain train`."""

    recipe: list[str]  # of all sizes
    sizes: dict[str, list[str]]  # what makes each of them, by name


@dataclass
class LadderDataConfig:
    train: str = "???"  # folder of packed training shards
    val: str = "???"  # folder of packed shards to measure loss and R@1 on
    name: str = ""  # as it stands in results.csv; empty: the folder
    # train on the first so many samples of the shards; 0: on all. Each is a trunk of its own
    num_samples: list[int] = field(default_factory=lambda: [0])
    num_val_samples: int = 1000
    val_batch_size: int = 32  # images of a batch of the held-out loss, which depends on it

    def __post_init__(self) -> None:
        if not self.num_samples:
            raise ConfigError("data.num_samples is empty: give [0] for all of the shards")
        for number in self.num_samples:
            check_at_least(0, {"data.num_samples": number})


@dataclass
class CostConfig:
    """What time is estimated from until a run of the size has been measured."""

    flops_per_second: float = 0.0  # of one rank, as reached in training; 0: see accelerator
    accelerator: str = ""  # a100, h100, h200 or l40s: its peak times mfu
    mfu: float = ASSUMED_MFU  # an assumption: see `pretrain plan --help`
    text_length: int = 0  # tokens of a text; 0: the mean over the first samples

    def __post_init__(self) -> None:
        if self.accelerator:
            check_choice("cost.accelerator", self.accelerator, ACCELERATORS)
        if not 0 < self.mfu <= 1:
            raise ConfigError(f"cost.mfu={self.mfu}: it is a share, above 0 and at most 1")
        numbers = {"flops_per_second": self.flops_per_second, "text_length": self.text_length}
        check_at_least(0, {f"cost.{name}": value for name, value in numbers.items()})


@dataclass
class LadderConfig:
    output: str = "???"  # folder of the runs and of what is told about them
    methods: dict[str, MethodConfig] = field(default_factory=dict)
    data: LadderDataConfig = field(default_factory=LadderDataConfig)
    samples: list[int] = field(default_factory=list)  # images seen, a run each
    # and as multiples of the model's parameters without the token embedding
    samples_per_parameter: list[float] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [0])
    trunks: bool = True  # lengths share a constant-rate trunk; else each has a cosine from step 0
    rules: RulesConfig = field(default_factory=RulesConfig)
    overrides: list[str] = field(default_factory=list)  # key=value for every run
    num_ranks: int = 1  # of a run, on this machine; on Slurm: nodes times GPUs of `job`
    slurm: bool = False  # submit the runs as arrays of jobs
    job: SubmitConfig = field(default_factory=lambda: SubmitConfig(name="ladder", nodes=1))
    cost: CostConfig = field(default_factory=CostConfig)

    def __post_init__(self) -> None:
        check_at_least(1, {"num_ranks": self.num_ranks})
        for name, given in (("methods", self.methods), ("seeds", self.seeds)):
            if not given:
                raise ConfigError(f"{name} is empty: name at least one")
        for name, method in self.methods.items():
            if not method.sizes:
                raise ConfigError(f"methods.{name}.sizes is empty: name at least one")
            _check_is_path_part("methods", name)
            for size in method.sizes:
                _check_is_path_part(f"methods.{name}.sizes", size)
        if not self.samples and not self.samples_per_parameter:
            raise ConfigError("samples is empty: give lengths, as in samples=[100000,200000]")
        for number in (*self.samples, *self.samples_per_parameter):
            if number <= 0:
                raise ConfigError(f"a length of {number} samples: it must be above 0")

    @property
    def world_size(self) -> int:
        if not self.slurm:
            return self.num_ranks
        return self.job.nodes * (self.job.ranks_per_node or self.job.gpus_per_node or 1)


@dataclass(frozen=True)
class Rung:
    """One run of a ladder: a model trained to one length."""

    name: str
    method: str
    size: str
    run: str  # what the lengths on one trunk have in common; without trunks its own name
    seed: int
    params: int  # N, without the token embedding
    batch: int  # images a step, of all ranks
    unique_samples: int  # different images among those seen
    config: PretrainConfig
    arguments: tuple[str, ...]  # of `pretrain train`
    parent: "Rung | None" = None  # whose trunk it goes on from
    trunk: str = ""  # the name of the one that it should go on from

    @property
    def folder(self) -> Path:
        return Path(self.config.run)

    @property
    def model(self) -> str:
        return f"{self.method}-{self.size}"

    @property
    def num_steps(self) -> int:
        return self.config.train.num_steps

    @property
    def samples(self) -> int:
        return self.num_steps * self.batch

    @property
    def begin_step(self) -> int:
        """Steps of the trunk that it need not train itself."""
        return self.parent.branch_step if self.parent else 0

    @property
    def branch_step(self) -> int:
        """Where it begins to cool down, and the next length begins."""
        return self.num_steps - self.config.optim.num_decay_steps

    @property
    def own_samples(self) -> int:
        return (self.num_steps - self.begin_step) * self.batch

    def beginning_from(self, ancestor: "Rung | None") -> "Rung":
        """The same run, going on from another trunk of its model, or from step 0."""
        if ancestor is self.parent:
            return self
        words = [word for word in self.arguments if not word.startswith(_BEGIN_FROM)]
        if ancestor:
            words.append(_begin_from(ancestor))
        config = load_config(PretrainConfig, words)
        return replace(self, config=config, arguments=tuple(words), parent=ancestor)


def make_rungs(config: LadderConfig) -> list[Rung]:
    """All runs, every one behind the one that it goes on from.

    Raises:
        UserError: a recipe is not understood, the shards are missing or too few, two runs have one
            name, or the lengths and shares do not go together.
    """
    _check_distinct(config)
    _check_held_out(config.data)
    available = TrainingShards(config.data.train, max(config.data.num_samples)).num_samples
    if 0 in config.data.num_samples:
        available = TrainingShards(config.data.train).num_samples
    rungs: list[Rung] = []
    for method, chosen in config.methods.items():
        for size in chosen.sizes:
            model = _Model(config, method, size)
            for num_samples in config.data.num_samples:
                for seed in config.seeds:
                    rungs += model.rungs(seed, num_samples, num_samples or available)
    return rungs


def count_run_parameters(config: PretrainConfig) -> dict[str, int]:
    """Parameters of the image tower and of the text tower, and N: all that take part in products,
    so without the token embedding, of which a token picks a row."""
    module = build_without_numbers(config)
    counts = count_parameters(module.model, module.objective)
    return {
        "image": counts["image"] + counts["superpixels"],
        "text": counts["part_text"] + counts["whole_text"],
        "total": counts["total"] - counts["token_embedding"],
    }


class _Model:
    """One size of one method: what the rules make of it.

    Args:
        config: the ladder.
        method: its name.
        size: the name of one of its sizes.
    """

    def __init__(self, config: LadderConfig, method: str, size: str) -> None:
        chosen = config.methods[method]
        self._config, self._method, self._size = config, method, size
        self._recipe = list(chosen.recipe)
        self._words = [*chosen.sizes[size], *config.overrides]  # these win over the rules
        _check_not_set(self._words, f"methods.{method}.sizes.{size} or overrides")
        rules, ranks = config.rules, config.world_size
        model = self._load()
        self._params = count_run_parameters(model)["total"]
        batch = rules.batch_of(self._params, ranks * model.engine.num_micro_batches)
        self._recipe.append(f"data.batch_size={batch // ranks}")
        self._batch = self._load().data.batch_size * ranks
        rate = rules.learning_rate_of(self._params, self._batch)
        self._recipe.append(f"optim.learning_rate={rate}")

    def rungs(self, seed: int, num_samples: int, available: int) -> Iterator[Rung]:
        """The lengths on one set of data, shortest first."""
        config, rules = self._config, self._config.rules
        per_parameter = [round(each * self._params) for each in config.samples_per_parameter]
        lengths = sorted({*config.samples, *per_parameter})
        shortest = round(lengths[0] / self._batch)
        run = _trunk_name(self._method, self._size, num_samples, seed)
        parent: Rung | None = None
        for length in lengths:
            num_steps = max(1, round(length / self._batch))
            name = f"{run}-s{length}"
            warmup = rules.warmup_steps_of(shortest if config.trunks else num_steps, self._batch)
            by_length = [f"optim.num_warmup_steps={warmup}"]
            fixed = [
                *(f"run={Path(config.output) / 'runs' / name}", f"seed={seed}"),
                *(f"data.train={config.data.train}", f"data.num_samples={num_samples}"),
                *(f"train.num_steps={num_steps}", *self._schedule(num_steps, parent)),
                *(f"validation.data={config.data.val}", f"validation.every={num_steps}"),
                f"validation.num_samples={config.data.num_val_samples}",
                f"validation.batch_size={config.data.val_batch_size}",
            ]
            arguments = [*self._recipe, *by_length, *self._words, *fixed]
            rung = Rung(
                name=name,
                method=self._method,
                size=self._size,
                run=run if config.trunks else name,
                seed=seed,
                params=self._params,
                batch=self._batch,
                unique_samples=min(available, num_steps * self._batch),
                config=load_config(PretrainConfig, arguments),
                arguments=tuple(arguments),
                parent=parent,
                trunk=parent.name if parent else "",
            )
            _check_length(rung, config.trunks)
            yield rung
            parent = rung if config.trunks else None

    def _schedule(self, num_steps: int, parent: Rung | None) -> list[str]:
        if not self._config.trunks:
            return ["optim.schedule=cosine"]
        cooldown = self._config.rules.cooldown_steps_of(num_steps)
        words = ["optim.schedule=wsd", f"optim.num_decay_steps={cooldown}"]
        words.append(f"train.keep_steps=[{num_steps - cooldown}]")
        if parent:
            words.append(_begin_from(parent))
        return words

    def _load(self) -> PretrainConfig:
        """Without a length, of which nothing is known yet."""
        fixed = ["run=none", "data.train=none", f"train.num_steps={2**40}"]
        return load_config(PretrainConfig, [*self._recipe, *self._words, *fixed])


def _begin_from(parent: Rung) -> str:
    return f"{_BEGIN_FROM}{checkpoint_folder(parent.folder, parent.branch_step)}"


def _trunk_name(method: str, size: str, num_samples: int, seed: int) -> str:
    part = f"d{num_samples}-" if num_samples else ""
    return f"{method}-{size}-{part}seed{seed}"


def _check_is_path_part(key: str, name: str) -> None:
    """Raises: ConfigError: no folder of a run could be called after this name."""
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        raise ConfigError(
            f"{key} has the name {name!r}: folders are called after it, so it must have no slash, "
            "not begin with a dot and not be empty"
        )


def _check_distinct(config: LadderConfig) -> None:
    """Raises: ConfigError: two runs of one length have the same name, and so the same folder."""
    count = Counter(
        _trunk_name(method, size, num_samples, seed)
        for method, chosen in config.methods.items()
        for size in chosen.sizes
        for num_samples in config.data.num_samples
        for seed in config.seeds
    )
    if repeated := [name for name, times in count.items() if times > 1]:
        raise ConfigError(
            f"several runs have the name {', '.join(repeated)}: give each of seeds and "
            "data.num_samples once, and methods and sizes names that make METHOD-SIZE differ"
        )


def _check_held_out(data: LadderDataConfig) -> None:
    """Raises: UserError: R@1 would be among fewer samples than results.csv says."""
    available = TrainingShards(data.val).num_samples
    if available < data.num_val_samples:
        raise ConfigError(
            f"{data.val} (data.val) holds {available} samples, fewer than data.num_val_samples="
            f"{data.num_val_samples}, among which R@1 is measured: give at most {available}, or "
            "pack more"
        )


def _check_not_set(words: Sequence[str], where: str) -> None:
    """Raises: ConfigError: a word sets what the ladder itself sets."""
    for word in words:
        key = word.partition("=")[0]
        if key in _SET_BY_THE_LADDER or key.startswith("validation."):
            raise ConfigError(f"{where}: {word}: the ladder sets {key}, by its own keys or rules")


def _check_length(rung: Rung, trunks: bool) -> None:
    """Raises: ConfigError: a length leaves nothing between its warm-up and its cool-down, or is
    the one before."""
    warmup = rung.config.optim.num_warmup_steps
    if trunks and warmup > rung.branch_step:
        raise ConfigError(
            f"{rung.name}: {warmup} steps of warm-up reach into the cool-down from step "
            f"{rung.branch_step} of {rung.num_steps} on: lower rules.warmup_share or "
            "rules.cooldown_share, or leave out the shortest length"
        )
    if rung.parent and rung.branch_step <= rung.parent.branch_step:
        raise ConfigError(
            f"{rung.name} and {rung.parent.name} are {rung.num_steps} and {rung.parent.num_steps} "
            f"steps of {rung.batch} images: too close, leave one out"
        )

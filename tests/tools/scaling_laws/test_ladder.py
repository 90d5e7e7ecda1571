"""From a YAML to runs: which, with what, and what each goes on from."""

from pathlib import Path
from typing import Any

import pytest

from pretrain.checkpoint import checkpoint_folder
from pretrain.data.captions import num_texts
from pretrain.metrics.flops import count_flops
from recaption.common.config import ConfigError, UserError, format_help, load_config
from tests.places import CONFIGS
from tests.pretrain.trainruns import write_training_shards
from tests.tools.scaling_laws.ladders import write_ladder
from tools.scaling_laws.cost import Costs
from tools.scaling_laws.ladder import LadderConfig, Rung, make_rungs
from tools.scaling_laws.plan import format_plan, make_plan


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ladder(tmp_path_factory.mktemp("ladder"))


@pytest.fixture(scope="module")
def one_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one-size")
    return write_ladder(
        folder, methods={"clip": {"recipe": [str(folder / "clip.yaml")], "sizes": {"s": []}}}
    )


def rungs_of(path: Path, *overrides: str) -> list[Rung]:
    return make_rungs(load_config(LadderConfig, [str(path), *overrides]))


def test_lengths_share_a_trunk(path: Path) -> None:
    rungs = rungs_of(path, "samples=[64,16,32]")
    assert [rung.name for rung in rungs if rung.size == "s"] == [
        f"clip-s-seed0-s{samples}" for samples in (16, 32, 64)
    ]
    short, middle, long = (rung for rung in rungs if rung.size == "s")
    assert [rung.num_steps for rung in (short, middle, long)] == [4, 8, 16]
    assert [rung.branch_step for rung in (short, middle, long)] == [2, 4, 8]
    assert [rung.begin_step for rung in (short, middle, long)] == [0, 2, 4]
    assert [rung.own_samples for rung in (short, middle, long)] == [16, 24, 48]
    assert short.parent is None and long.parent is middle
    assert long.config.train.begin_from == str(checkpoint_folder(middle.folder, 4))
    assert middle.config.train.keep_steps == [4]
    assert {rung.config.optim.num_warmup_steps for rung in rungs} == {1}
    assert {rung.config.optim.schedule for rung in rungs} == {"wsd"}
    assert [rung.unique_samples for rung in (short, middle, long)] == [16, 24, 24]
    assert {rung.run for rung in (short, middle, long)} == {"clip-s-seed0"}


def test_without_trunks_each_is_alone(path: Path) -> None:
    rungs = rungs_of(path, "trunks=false")
    assert all(rung.parent is None and rung.begin_step == 0 for rung in rungs)
    assert {rung.config.optim.schedule for rung in rungs} == {"cosine"}
    assert [rung.config.optim.num_warmup_steps for rung in rungs] == [1, 2, 1, 2]
    assert [rung.run for rung in rungs] == [rung.name for rung in rungs]  # nothing in common


def test_sets_and_seeds_are_trunks_of_their_own(one_size: Path) -> None:
    rungs = rungs_of(one_size, "data.num_samples=[8,0]", "seeds=[0,1]")
    assert len(rungs) == 2 * 2 * 2 and len({rung.name for rung in rungs}) == len(rungs)
    assert len({rung.run for rung in rungs}) == 4
    parts = [rung for rung in rungs if rung.config.data.num_samples == 8]
    assert all("-d8-" in rung.name and rung.unique_samples == 8 for rung in parts)
    assert all(rung.config.seed == rung.seed == rung.parent.seed for rung in rungs if rung.parent)


def test_rules_give_way_to_what_a_size_says(path: Path) -> None:
    by_rule = rungs_of(path, "rules.batch_exponent=2", "rules.learning_rate_exponent=-1")
    small, large = (next(r for r in by_rule if r.size == size) for size in ("s", "m"))
    assert large.batch > small.batch and large.num_steps < small.num_steps
    given = rungs_of(path, "overrides=[data.batch_size=8,optim.learning_rate=0.5]")
    assert {rung.batch for rung in given} == {8}
    assert {rung.config.optim.learning_rate for rung in given} == {0.5}


def test_lengths_as_multiples_of_the_parameters(path: Path) -> None:
    rungs = rungs_of(path, "samples=[]", "samples_per_parameter=[0.01]")
    for rung in rungs:
        assert rung.samples == pytest.approx(0.01 * rung.params, abs=rung.batch / 2)


def test_costs_are_those_of_the_trainer(path: Path) -> None:
    """The towers' FLOPs against the count that MFU is of; the embedding is in no product."""
    config = load_config(LadderConfig, [str(path), "cost.text_length=32"])
    rung = make_rungs(config)[0]
    cost = Costs(config).of(rung)
    model = rung.config.model
    expected = count_flops(model, num_texts(rung.config.data.captions)).of(1, 32)
    assert cost.flops_per_sample - cost.flops["loss"] == pytest.approx(expected)
    assert cost.params_image + cost.params_text - cost.params == pytest.approx(49408 * 24, rel=0.01)
    assert (Path(config.output) / "costs.json").exists()


def test_flops_do_not_depend_on_the_ranks(path: Path) -> None:
    """So that a row stays true when the ladder goes on with more ranks."""
    costs = []
    for num_ranks in (1, 2):
        words = [str(path), "cost.text_length=32", f"num_ranks={num_ranks}"]
        config = load_config(LadderConfig, words)
        rung = make_rungs(config)[0]
        assert rung.config.data.batch_size == rung.batch / num_ranks
        costs.append(Costs(config).of(rung).flops)
    assert costs[0] == costs[1]


def test_what_is_computed_twice_takes_time_but_is_no_flops(path: Path) -> None:
    def first_row(*words: str) -> dict[str, Any]:
        config = load_config(LadderConfig, [str(path), "cost.text_length=32", *words])
        row: dict[str, Any] = make_plan(config, make_rungs(config))["rungs"][0]
        return row

    once = first_row()
    for word in ("engine.num_micro_batches=2", "train.recompute_blocks=true"):
        twice = first_row(f"overrides=[{word}]")
        assert twice["flops"] == once["flops"]
        assert 1.1 < twice["seconds_left"] / once["seconds_left"] < 1.5


def test_a_plan_counts_what_is_left(path: Path) -> None:
    config = load_config(LadderConfig, [str(path)])
    rungs = make_rungs(config)
    plan = make_plan(config, rungs)
    costs = Costs(config)
    own = sum(rung.own_samples * costs.of(rung).flops_per_sample for rung in rungs)
    assert plan["flops_to_train"] == pytest.approx(own)
    assert plan["seconds_left"] == pytest.approx(own / 1e9)  # cost.flops_per_second
    assert plan["num_done"] == 0 and plan["rungs"][0]["status"] == "new"
    assert plan["rungs"][1]["flops"] == 2 * plan["rungs"][0]["flops"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("overrides=[train.num_steps=5]", r"the ladder sets train\.num_steps"),
        ("overrides=[validation.every=5]", r"the ladder sets validation\.every"),
        ("rules.warmup_share=0.8", r"s16: 3 steps of warm-up reach into the cool-down from step 2"),
        ("samples=[16,17]", r"s17 and .*s16 are 4 and 4 steps of 4 images: too close"),
        ("samples=[]", r"samples is empty: give lengths"),
        ("seeds=[0,1,0]", r"several runs have the name clip-s-seed0: give each of seeds"),
        ("data.num_samples=[8,8]", r"several runs have the name clip-s-d8-seed0"),
        (
            "methods.clip.sizes={s: [], a/b: []}",
            r"methods\.clip\.sizes has the name 'a/b': folders",
        ),
        ("methods.clip.sizes={..: []}", r"has the name '\.\.': folders are called after it"),
        ("methods={'': {recipe: [], sizes: {s: []}}}", "methods has the name '': folders"),
        ("data.val=elsewhere", r"elsewhere is not a folder of training shards"),
        ("data.num_val_samples=25", r"\(data\.val\) holds 24 samples, fewer than data\.num_val_s"),
        ("data.num_samples=[99]", r"holds 24 samples, fewer than"),
        ("methods.clip.size={}", r"unknown key 'methods\.clip\.size'; did you mean"),
        ("overrides=[optim.learning=1]", r"unknown key 'optim\.learning'"),
    ],
)
def test_ladders_that_cannot_be(one_size: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        rungs_of(one_size, override)


def test_names_that_run_into_each_other(tmp_path: Path) -> None:
    recipe = [str(tmp_path / "clip.yaml")]
    methods = {
        "a-b": {"recipe": recipe, "sizes": {"c": []}},
        "a": {"recipe": recipe, "sizes": {"b-c": []}},
    }
    ladder = write_ladder(tmp_path, methods=methods)
    with pytest.raises(ConfigError, match=r"several runs have the name a-b-c-seed0: .* METHOD-SIZ"):
        rungs_of(ladder)


def test_a_plan_says_when_samples_follow_from_sizes(tmp_path: Path) -> None:
    sizes = {f"w{width}": [f"model.image.vit.width={width}"] for width in (16, 32, 48)}
    recipe = [str(tmp_path / "clip.yaml")]
    path = write_ladder(tmp_path, methods={"clip": {"recipe": recipe, "sizes": sizes}})
    told = []
    for multiples in ("[0.02]", "[0.02,0.04]"):
        words = [str(path), "samples=[]", f"samples_per_parameter={multiples}"]
        config = load_config(LadderConfig, [*words, "cost.text_length=32"])
        plan = make_plan(config, make_rungs(config))
        assert all(f"\nnote: {note}" in format_plan(plan, config) for note in plan["notes"])
        told.append(plan["notes"])
    assert told[0][0].startswith("clip: N and D grow together in these points; give two or more")
    assert [len(notes) for notes in told] == [1, 0]


@pytest.mark.parametrize("kept", ['{"a": {"params"', "[1]", '{"a": {"params": 3}}'])
def test_costs_that_are_damaged_are_counted_again(
    one_size: Path, tmp_path: Path, kept: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(one_size), f"output={tmp_path}", "cost.text_length=32"]
    config = load_config(LadderConfig, words)
    rung = make_rungs(config)[0]
    (tmp_path / "costs.json").write_text(kept)
    cost = Costs(config).of(rung)
    told = capsys.readouterr().err
    assert told.startswith("warning: ") and "costs.json" in told and "are counted again" in told
    assert Costs(config).of(rung) == cost
    assert capsys.readouterr().err == ""


def test_the_help_tells_a_ladders_own_defaults() -> None:
    keys = {line.split()[0] for line in format_help(LadderConfig).splitlines()}
    assert {"job.name=ladder", "job.nodes=1", "job.cpus_per_rank=8"} <= keys


def test_the_ladder_of_the_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both methods have as many parameters at each size, and four sizes of three lengths."""
    monkeypatch.chdir(CONFIGS.parent)
    shards = write_training_shards(tmp_path / "shards", 48)
    path = CONFIGS / "scaling/scenes.yaml"
    words = [f"data.train={shards}", f"data.val={shards}", "data.num_val_samples=48"]
    config = load_config(LadderConfig, [str(path), *words])
    assert len(config.samples) >= 3
    config.samples = config.samples[:1]
    rungs = make_rungs(config)
    assert len(rungs) == 2 * 4
    for size in ("xs", "s", "m", "l"):
        ours, theirs = (
            next(rung.params for rung in rungs if rung.model == f"{method}-{size}")
            for method in ("caft", "clip")
        )
        assert abs(ours - theirs) < 0.05 * ours


def test_an_estimate_takes_the_share_that_trainings_reach(path: Path) -> None:
    config = load_config(
        LadderConfig, [str(path), "cost.flops_per_second=0", "cost.accelerator=a100", "num_ranks=2"]
    )
    row = make_plan(config, make_rungs(config))["rungs"][0]
    reached = row["samples_per_second"] * row["flops_per_sample"]
    assert reached == pytest.approx(2 * 0.15 * 19.5e12)


def test_an_unknown_accelerator(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cost\.accelerator is 'h1000'; choose"):
        rungs_of(path, "cost.accelerator=h1000")

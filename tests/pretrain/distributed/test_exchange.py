"""One to four gloo processes against one that holds all samples."""

import pytest
import torch
import torch.distributed as dist

from pretrain.distributed.exchange import Exchange
from pretrain.models.features import ImageFeatures, TextFeatures
from pretrain.objectives.caft import CaftObjective
from pretrain.objectives.candidates import own_and_drawn, owned
from pretrain.objectives.contrastive import sigmoid_contrast
from pretrain.objectives.flair import FlairObjective
from pretrain.objectives.registry import OBJECTIVES, ObjectiveConfig, build_objective
from pretrain.ops.text_conditioned import chosen_cosines
from tests.pretrain.distributed.processes import launch, run_rank

WIDTH, NUM_SAMPLES, NUM_TEXTS = 16, 12, 3
MAX_RANKS = 4
CASES = [*OBJECTIVES, "caft softmax"]
#: Of every temperature and bias, so that no two are alike.
NUMBERS = {"log_scale": 1.7, "part_log_scale": 1.9, "whole_log_scale": 1.3}
NUMBERS |= {"bias": -1.2, "part_bias": -0.7, "whole_bias": -1.9}


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """Four processes, of which the last one, two, three and four are a group each."""
    return launch(__file__, tmp_path_factory.mktemp("ranks"), MAX_RANKS)


@pytest.fixture
def ranks(launched):
    """Results of every case on each rank of a group."""

    def results(world_size):
        return [of_groups[str(world_size)] for of_groups in launched[MAX_RANKS - world_size :]]

    return results


def exchange_by_hand(exchange):
    """Every rank weighs what comes from rank s by 10 s + its own number."""
    rank, order = exchange.rank, []
    sums, greatest = exchange.homeward(), exchange.homeward(torch.maximum)
    numbers = torch.full((2,), rank, dtype=torch.uint8)
    for source, (chunk, number) in exchange.ring(torch.full((2, 3), float(rank)), numbers):
        order.append((source, chunk.mean().item(), number.tolist()))
        sums.add((10 * source + rank) * torch.ones(2, 3))
        greatest.add(torch.tensor([float((source + 2 * rank) % exchange.world_size)]))
    return {"order": order, "sums": sums.collect(), "greatest": greatest.collect()}


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_chunks_go_round_and_sums_come_home(world_size, ranks):
    for rank, result in enumerate(result["by hand"] for result in ranks(world_size)):
        # Own first, then from the left.
        sources = [(rank - d) % world_size for d in range(world_size)]
        assert result["order"] == [(s, s, [s, s]) for s in sources]
        assert (result["sums"] == sum(10 * rank + other for other in range(world_size))).all()
        others = [(rank + 2 * other) % world_size for other in range(world_size)]
        assert result["greatest"].item() == max(others)


def test_alone():
    exchange = Exchange()
    x = torch.randn(2, 3)
    assert (exchange.rank, exchange.world_size) == (0, 1)
    (only,) = exchange.ring(x)
    assert only[0] == 0 and torch.equal(only[1][0], x)
    homeward = exchange.homeward()
    homeward.add(x.clone())
    assert torch.equal(homeward.collect(), x)


class Sending:
    """A request that tells when it is waited for."""

    def __init__(self, what, events):
        self.what, self.events = what, events

    def wait(self):
        self.events.append(f"{self.what} there")


def test_chunks_and_sums_travel_while_others_are_worked_on(monkeypatch):
    exchange, events = Exchange(), []
    exchange.world_size = 3

    def start_shift(sent, received):
        what = "chunk" if sent[0].dtype == torch.float32 else "sum"
        events.append(f"{what} leaves")
        return [Sending(what, events)]

    monkeypatch.setattr(exchange, "_start_shift", start_shift)
    homeward = exchange.homeward()
    for _ in exchange.ring(torch.zeros(2)):
        events.append("work")
        homeward.add(torch.zeros(2, dtype=torch.float64))
    homeward.collect()
    assert events == [
        *("chunk leaves", "work", "sum leaves", "chunk there"),
        *("chunk leaves", "work", "sum there", "sum leaves", "chunk there"),
        *("work", "sum there", "sum leaves", "sum there"),
    ]


def build(case):
    name, _, form = case.partition(" ")
    torch.manual_seed(0)
    config = ObjectiveConfig(name)
    config.caft.loss_form = form or "sigmoid"
    objective = build_objective(config, WIDTH)
    with torch.no_grad():
        for parameter, value in NUMBERS.items():
            if getattr(objective, parameter, None) is not None:
                getattr(objective, parameter).fill_(value)
    return objective


def features():
    """The features of all samples, and what is drawn at random."""
    generator = torch.Generator().manual_seed(1)
    shapes = {
        "pooled": (WIDTH,),
        "tokens": (4, WIDTH),
        "fine_pooled": (WIDTH,),
        "fine_tokens": (5, WIDTH),
        "whole": (WIDTH,),
        "parts": (NUM_TEXTS, WIDTH),
    }
    drawn = torch.randint(NUM_TEXTS, (NUM_SAMPLES, NUM_SAMPLES), generator=generator)
    tensors = {n: torch.randn(NUM_SAMPLES, *s, generator=generator) for n, s in shapes.items()}
    return tensors, drawn


def terms_of(objective, own, drawn, exchange):
    """Terms of the loss of some samples; `drawn` is square (as much of it as the form reads)."""
    image = ImageFeatures(*(own[n] for n in ("pooled", "tokens", "fine_pooled", "fine_tokens")))
    text = TextFeatures(own["whole"], own["parts"])
    if isinstance(objective, FlairObjective):
        return objective.terms(image, text, exchange, drawn)
    if isinstance(objective, CaftObjective) and objective.config.loss_form == "softmax":
        return objective.softmax_terms(image, text, exchange, drawn[:, 0])
    if isinstance(objective, CaftObjective):
        return objective.sigmoid_terms(image, text, exchange, drawn)
    return objective(image, text, exchange)


def loss_of(terms):
    """The terms with weights that are not alike."""
    return sum((1 + index) * term for index, term in enumerate(terms.values()))


def local_of_all(objective, own, drawn, world_size):
    """Mean over ranks of their sigmoid part-local terms: plain autograd on all pairs, one process.

    What an image meets of a rank's texts is up to the table that this rank has drawn.
    """
    is_caft = isinstance(objective, CaftObjective)
    scale = objective.part_scale if is_caft else objective.scale
    bias = objective.part_bias if is_caft else objective.bias
    tokens = own["fine_tokens" if is_caft else "tokens"]
    keys_values = objective.attention_pooling.project_tokens(tokens)
    batch = NUM_SAMPLES // world_size
    loss = 0
    for source in range(world_size):
        there = slice(source * batch, (source + 1) * batch)
        chosen = own_and_drawn(drawn[there, :batch], NUM_TEXTS)
        texts = own["parts"][there].flatten(0, 1)
        cosines = chosen_cosines(
            objective.attention_pooling, keys_values, texts, chosen.repeat(world_size, 1), 0
        )
        positive = owned(chosen, NUM_TEXTS).repeat(world_size, 1)
        positive &= (torch.arange(NUM_SAMPLES) // batch == source).unsqueeze(1)
        loss = loss + sigmoid_contrast(scale * cosines + bias, positive)
    loss = loss / (batch + NUM_TEXTS - 1) / world_size
    return loss if is_caft else loss / 2


def leaves(tensors, share=slice(None)):
    return {n: t[share].clone().requires_grad_() for n, t in tensors.items()}


def with_gradients(loss, own, objective):
    loss.backward()
    return {
        "loss": loss.detach(),
        "features": {n: t.grad for n, t in own.items() if t.grad is not None},
        "parameters": {n: p.grad for n, p in objective.named_parameters()},
    }


def of_one_rank(case, exchange):
    """Loss and gradients of a rank that holds its share of the samples."""
    objective = build(case)
    tensors, drawn = features()
    batch = NUM_SAMPLES // exchange.world_size
    share = slice(exchange.rank * batch, (exchange.rank + 1) * batch)
    own = leaves(tensors, share)
    terms = terms_of(objective, own, drawn[share, :batch], exchange)
    return with_gradients(loss_of(terms), own, objective)


def of_one_process(case, world_size):
    """The mean over so many ranks, and its gradients, by one process that holds all samples."""
    objective = build(case)
    tensors, drawn = features()
    own = leaves(tensors)
    terms = terms_of(objective, own, drawn, Exchange())
    if case in ("caft", "flair"):
        terms["part_local"] = local_of_all(objective, own, drawn, world_size)
    return with_gradients(loss_of(terms), own, objective)


@pytest.fixture
def double_precision():
    """Sums in another order agree far more closely than anything wrong would."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_many_ranks_equal_one_process(world_size, case, ranks, double_precision):
    one = of_one_process(case, world_size)
    results = [result[case] for result in ranks(world_size)]
    loss = sum(r["loss"] for r in results) / world_size
    torch.testing.assert_close(loss, one["loss"], rtol=1e-10, atol=0)
    for key, gradient in one["features"].items():
        joined = torch.cat([r["features"][key] for r in results]) / world_size
        torch.testing.assert_close(joined, gradient, rtol=1e-8, atol=1e-10)
    for key, gradient in one["parameters"].items():
        averaged = sum(r["parameters"][key] for r in results) / world_size
        torch.testing.assert_close(averaged, gradient, rtol=1e-8, atol=1e-10)


def all_results(rank, _):
    results = {}
    for world_size in range(1, MAX_RANKS + 1):
        first = MAX_RANKS - world_size
        group = dist.new_group(range(first, MAX_RANKS))
        if rank >= first:
            exchange = Exchange(group)
            torch.set_default_dtype(torch.float64)
            of_cases = {case: of_one_rank(case, exchange) for case in CASES}
            torch.set_default_dtype(torch.float32)
            results[str(world_size)] = of_cases | {"by hand": exchange_by_hand(exchange)}
    return results


if __name__ == "__main__":
    run_rank(all_results)

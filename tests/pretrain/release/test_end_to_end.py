"""A run of two ranks under ZeRO 2, released by the command, opened where no trainer is."""

import json
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file

from tests.places import CHECKOUT
from tests.pretrain.release.closed_environment import make_environment, run_closed
from tests.pretrain.trainruns import TINY, train, write_training_shards

OPEN = """
import json
import pretrain
from pretrain.release.sample import main
from recaption.common.errors import UserError
from pathlib import Path

release = Path({release!r})
main([str(release), "--json"])
outside = [
    module.__file__
    for name, module in sys.modules.items()
    if (getattr(module, "__file__", None) or "").startswith("/")  # torch has some by name only
    and not module.__file__.startswith(({environment!r}, *standard))
]
print(json.dumps(outside))
for name in ("model.safetensors", "config.json"):
    content = bytearray((release / name).read_bytes())
    content[-2] ^= 1
    (release / name).write_bytes(content)
    try:
        pretrain.load(release)
    except UserError as error:
        print(error)
    content[-2] ^= 1
    (release / name).write_bytes(content)
"""


def test_a_run_of_two_ranks_opens_where_only_torch_and_the_tokenizer_are(tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY)
    shards = write_training_shards(tmp_path / "CC3M" / "train", 48)
    settings = ("train.num_steps=3", "train.log_every=1", "engine.zero_stage=2")
    run = tmp_path / "run"
    train(config, f"run={run}", f"data.train={shards}", *settings, num_ranks=2)
    command = [sys.executable, "-m", "pretrain", "release", f"run={run}", "step=3", "--json"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    release = run / "releases" / "CAFT-w24d3-8-CC3M-s24-b8"
    measured = {"evaluated": False, "benchmarks": []}
    assert told == {"release": str(release), "name": release.name, **measured}
    facts = json.loads((release / "release.json").read_text())
    assert facts["training"]["num_ranks"] == 2 and facts["training"]["hours"] > 0

    environment = tmp_path / "environment"
    roots = ("torch", "torchvision", "safetensors", "open_clip_torch", "omegaconf", "pi-heif")
    names = make_environment(environment, *roots)
    assert not {"deepspeed", "mosaicml-streaming", "pyarrow", "transformers"} & {*names}
    program = OPEN.format(release=str(release), environment=str(environment))
    opened = run_closed(environment, f"standard = [*sys.path[:-1]]\n{program}")
    assert opened.returncode == 0, opened.stderr
    *_, differences, outside, weights, configuration = opened.stdout.splitlines()
    expected = load_file(release / "samples" / "outputs.safetensors")
    assert json.loads(differences).keys() == expected.keys()
    assert max(json.loads(differences).values()) <= 1e-5
    assert json.loads(outside) == []
    assert weights.startswith(f"{release / 'model.safetensors'} is damaged: its checksum")
    assert configuration.startswith(f"{release / 'config.json'} is damaged: its checksum")

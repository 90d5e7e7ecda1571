"""Where a run of a ladder really begins.

That is at the trunk of the length before. Where that one has gone on without its checkpoint being
there (deleted, not written for want of room, or its step was skipped) a run goes on from the
nearest trunk before it whose checkpoint is there, or begins at step 0. It ends bit by bit the same,
since the constant part knows no length, and makes the missing steps once more.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pretrain.checkpoint import CONFIG, complete_checkpoints, step_of
from pretrain.config import PretrainConfig
from recaption.common.config import read_config
from tools.scaling_laws.ladder import Rung
from tools.scaling_laws.outcome import RESULT


def as_begun(rung: Rung) -> Rung:
    """The run as it was begun, or as it would begin now, and so those that it goes on from."""
    trunk = _recorded(rung) if _has_own_steps(rung) else _trunk_of_now(rung)
    if trunk is not None:
        trunk = as_begun(trunk)
    if trunk is not None and rung.parent is not None and trunk.name == rung.parent.name:
        return replace(rung, parent=trunk)
    return rung.beginning_from(trunk)


def can_begin(rung: Rung) -> bool:
    """Whether the trunk that it goes on from is there."""
    return rung.parent is None or _has_own_steps(rung) or _has_branch(rung.parent)


def _has_own_steps(rung: Rung) -> bool:
    """Then it is the first attempt that says where it began."""
    is_kept = (rung.folder / RESULT).exists() or bool(complete_checkpoints(rung.folder))
    return is_kept and (rung.folder / CONFIG).exists()


def _recorded(rung: Rung) -> Rung | None:
    begun = read_config(PretrainConfig, rung.folder / CONFIG).train.begin_from
    if not begun:
        return None
    name = Path(begun).parents[1].name  # RUNS/NAME/checkpoints/step-...
    return next((trunk for trunk in _before(rung) if trunk.name == name), rung.parent)


def _trunk_of_now(rung: Rung) -> Rung | None:
    for trunk in _before(rung):
        if _has_branch(trunk) or not _is_past_its_branch(trunk):
            return trunk
    return None


def _before(rung: Rung) -> Iterator[Rung]:
    """The shorter lengths, longest first."""
    while rung.parent:
        rung = rung.parent
        yield rung


def _has_branch(rung: Rung) -> bool:
    return any(step_of(path) == rung.branch_step for path in complete_checkpoints(rung.folder))


def _is_past_its_branch(rung: Rung) -> bool:
    """So that a checkpoint of it, where there is none, will not come."""
    complete = complete_checkpoints(rung.folder)
    is_past = bool(complete) and step_of(complete[-1]) > rung.branch_step
    return is_past or (rung.folder / RESULT).exists()

"""Disturbs some steps of a training, by what its environment says.

POISONED_STEPS=3,4 puts a NaN into the images of these; SLOW_FROM_STEP=14 makes them half a second
longer from there on, in the first attempt of a job. Python imports this module at its start where
its folder is on the path.
"""

import os
import sys
import time
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


class _Disturber(MetaPathFinder):
    def find_spec(
        self, name: str, path: Any, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "pretrain.data.transforms":
            return None
        spec = PathFinder.find_spec(name, path, target)
        assert spec is not None and spec.loader is not None
        execute = spec.loader.exec_module

        def execute_and_disturb(module: ModuleType) -> None:
            execute(module)
            normalise, num_batches = module.normalise, [0]
            poisoned_steps = os.environ.get("POISONED_STEPS", "").split(",")
            is_first_attempt = os.environ.get("SLURM_RESTART_COUNT", "0") == "0"
            slow_from = int(os.environ.get("SLOW_FROM_STEP", sys.maxsize))

            def disturbed(images: Any) -> Any:
                num_batches[0] += 1
                if is_first_attempt and num_batches[0] >= slow_from:
                    time.sleep(0.5)
                images = normalise(images)
                if str(num_batches[0]) in poisoned_steps:
                    images[0, 0, 0, 0] = float("nan")
                return images

            module.normalise = disturbed  # type: ignore[attr-defined]

        spec.loader.exec_module = execute_and_disturb  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _Disturber())

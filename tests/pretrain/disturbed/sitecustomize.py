"""Puts a NaN into the images of some steps of a training: those numbered in POISONED_STEPS.

Python imports this module at its start where its folder is on the path.
"""

import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


class _Poisoner(MetaPathFinder):
    def find_spec(
        self, name: str, path: Any, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "pretrain.data.transforms":
            return None
        spec = PathFinder.find_spec(name, path, target)
        assert spec is not None and spec.loader is not None
        execute = spec.loader.exec_module

        def execute_and_poison(module: ModuleType) -> None:
            execute(module)
            normalise, num_batches = module.normalise, [0]
            steps = [int(step) for step in os.environ["POISONED_STEPS"].split(",")]

            def poisoned(images: Any) -> Any:
                num_batches[0] += 1
                images = normalise(images)
                if num_batches[0] in steps:
                    images[0, 0, 0, 0] = float("nan")
                return images

            module.normalise = poisoned  # type: ignore[attr-defined]

        spec.loader.exec_module = execute_and_poison  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _Poisoner())

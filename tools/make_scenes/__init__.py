"""Part-whole scenes with exact masks and descriptions, written as web shards."""

from tools.make_scenes.scene import Scene, make_scene

__all__ = ["Scene", "make_scene"]

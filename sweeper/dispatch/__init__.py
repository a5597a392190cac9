"""Where trials run: slots that take one trial at a time. The only package that knows Ray."""

from __future__ import annotations

from sweeper.dispatch.ray_workers import RayWorkers
from sweeper.dispatch.workers import Workers, import_paths

__all__ = ["RayWorkers", "Workers", "import_paths"]

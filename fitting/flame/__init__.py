"""Head models that the user owns: FLAME's files, read without running them; no asset ships."""

from fitting.flame.embeddings import read_embedding
from fitting.flame.model import FlameMeshes, FlameModel, read_flame

__all__ = ["FlameMeshes", "FlameModel", "read_embedding", "read_flame"]

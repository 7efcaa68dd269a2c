"""Many tracks at once: finding them, and running over them so that one cannot end the others."""

from typing import Literal, TypeAlias

NAME = "{name}"
"""What stands for a track's name in the output of several."""

MinConfidence: TypeAlias = Literal["exact", "exact-up-to-build", "consistent"]
"""How certain a recovered box must be to be written; here so that help need not load the solver."""

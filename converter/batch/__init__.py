"""Many tracks at once: finding them, and running over them so that one cannot end the others."""

NAME = "{name}"
"""What stands for a track's name in the output of several."""

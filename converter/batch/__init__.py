"""Many tracks at once: finding them, and running over them so that one cannot end the others."""

"""uncrop: head-tracking output into avatar-trainer datasets, with cameras that are right."""

__version__ = "0.1.0"

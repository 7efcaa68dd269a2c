"""Everything with a tolerance, an iteration or a detector. Exact formulas live in ``converter``."""

from fitting.pose import RigidFit, fit_rigid

__all__ = ["RigidFit", "fit_rigid"]

"""Everything with a tolerance, an iteration or a detector. Exact formulas live in ``converter``."""

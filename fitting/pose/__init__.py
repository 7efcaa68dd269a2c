"""Rigid camera fits: problem, terms, two solvers, and one function in front of them."""

from fitting.pose.central import CentralFit, refit_central
from fitting.pose.fit import RigidFit, fit_rigid
from fitting.pose.problem import IBUG_68, CameraSmoothing, Ears, Group, HeadSmoothing
from fitting.pose.uncertainty import Uncertainty

__all__ = [
    "IBUG_68",
    "CameraSmoothing",
    "CentralFit",
    "Ears",
    "Group",
    "HeadSmoothing",
    "RigidFit",
    "Uncertainty",
    "fit_rigid",
    "refit_central",
]

"""Exact camera geometry in float64. The conventions, stated once.

Pixels
    **Edge origin**: an image of W x H pixels spans [0, W] x [0, H]; the first pixel's centre is
    (0.5, 0.5). OpenCV functions and landmark detectors count pixel centres from 0 ("index
    coordinates"); cross over only through `pixels_from_index` and `index_from_pixels`.
Axes
    **OpenCV**: x right, y down, z forward. A pose is world-to-camera: ``x_cam = R x_world + t``,
    metres. OpenGL is diag(1, -1, -1) times it, pytorch3d diag(-1, -1, 1); both are rotations.
Names
    A transform is called ``a_from_b``; in a product the neighbouring names must agree:
    ``canvas_from_crop = canvas_from_source @ source_from_crop``.
Units
    Radians unless a name ends in ``_deg``; pixels and metres otherwise; leading axes are batches.
"""

from converter.geometry.crop import BBox, Crop, Window
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import PixelAffine, Size, index_from_pixels, pixels_from_index
from converter.geometry.pose import (
    OPENCV_FROM_OPENGL,
    OPENCV_FROM_PYTORCH3D,
    Pose,
    euler_xyz_from_matrix,
    matrix_from_euler_xyz,
    matrix_from_rotation_6d,
    matrix_from_rotation_vector,
    rotation_6d_from_matrix,
    rotation_vector_from_matrix,
)

__all__ = [
    "OPENCV_FROM_OPENGL",
    "OPENCV_FROM_PYTORCH3D",
    "BBox",
    "Crop",
    "Intrinsics",
    "PixelAffine",
    "Pose",
    "Size",
    "Window",
    "euler_xyz_from_matrix",
    "index_from_pixels",
    "matrix_from_euler_xyz",
    "matrix_from_rotation_6d",
    "matrix_from_rotation_vector",
    "pixels_from_index",
    "rotation_6d_from_matrix",
    "rotation_vector_from_matrix",
]

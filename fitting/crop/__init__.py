"""Lost bbox.pt: found again from crops and source frames, and proved by re-rendering."""

from fitting.crop.certificate import CropCertificate, FramePair, Verdict
from fitting.crop.recover import recover_crop

__all__ = ["CropCertificate", "FramePair", "Verdict", "recover_crop"]

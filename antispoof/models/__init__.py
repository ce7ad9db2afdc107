"""The detectors. A network's own file is imported when it is asked for by name."""

from antispoof.model_names import model_names
from antispoof.models.detector import BONAFIDE, LABELS, SPOOF, Config, Detector, DetectorOutput, freeze
from antispoof.models.registry import create_model, register, small_config

__all__ = [
    "BONAFIDE",
    "LABELS",
    "SPOOF",
    "Config",
    "Detector",
    "DetectorOutput",
    "create_model",
    "freeze",
    "model_names",
    "register",
    "small_config",
]

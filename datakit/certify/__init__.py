"""Certificates: the measured geometric quality of a scene, from its data alone."""

from .certificate import Certificate, CheckResult, Measure, summarise, worst_verdict, write_certificate
from .certify import certify_scene
from .thresholds import Thresholds, load_thresholds

__all__ = [
    "Certificate",
    "CheckResult",
    "Measure",
    "Thresholds",
    "certify_scene",
    "load_thresholds",
    "summarise",
    "worst_verdict",
    "write_certificate",
]

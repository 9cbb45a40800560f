"""Interfaces that other code expects, over our sampler: change one import and keep the script."""

from smoothcert.compat.art import SmoothedEstimator
from smoothcert.compat.smooth import Smooth

__all__ = ["Smooth", "SmoothedEstimator"]

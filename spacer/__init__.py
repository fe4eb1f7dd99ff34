"""Spacer: train and evaluate video models for spatial reasoning."""

__version__ = "0.1.0"

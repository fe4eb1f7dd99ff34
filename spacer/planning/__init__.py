"""Estimates what a GRPO run needs, without weights: memory, FLOPs, limits, days."""

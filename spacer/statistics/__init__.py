"""Means, intervals, resampling and paired comparisons (pure)."""

"""Logs metrics as one continuous history, and records the provenance of a run's results."""

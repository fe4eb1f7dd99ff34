"""Processes: how a run ends, worker pools, and the cache folders of libraries."""

"""Sweeps that lose nothing: job states are read from their folders, and finished jobs never run again."""

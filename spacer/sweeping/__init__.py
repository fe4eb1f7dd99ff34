"""Sweeps that lose nothing: what a job left is read from its folder, and what is done is never run again."""

"""Rollout: prompts → completions."""

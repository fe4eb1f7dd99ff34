"""What a GRPO run needs, worked out without weights: memory, FLOPs, what fits, days."""

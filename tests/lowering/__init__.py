"""FlexAttention lowered for a GPU that is not there."""

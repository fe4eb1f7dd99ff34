"""Loading a model, and the three things asked of it: vision features, states over a packed row, log-probabilities.

Works for the Qwen2-VL, Qwen2.5-VL and Qwen3-VL classes of transformers. Everything goes through the text model by its
public arguments: embeddings, explicit M-RoPE positions, and `tree`, which `spacer.attention` attends with.
"""

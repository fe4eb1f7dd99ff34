"""Evaluation: predict, score and compare, with JSONL files between them."""

"""Group-relative policy optimization and its variants: rewards → advantages → loss. Pure functions of tensors.

Shape suffixes:
    N prompts, G completions per prompt, B = N * G completions (the G of the first prompt, then of the second, …),
    C completion tokens (padded to the longest completion).

Sources: GRPO arXiv 2402.03300, Dr. GRPO 2503.20783, DAPO 2503.14476, GSPO 2507.18071, CISPO 2506.13585,
SAPO 2511.20347, GDPO 2601.05242, SpaceR 2504.01805. Departures:
- The KL estimate's exponent is clamped, and without clip bounds the ratio is not clipped, as in SpaceR's release.
- A group of equal rewards has advantages of exactly 0, not rounding noise divided by eps.
- DAPO samples until the batch is full of groups with different rewards, and takes as many as it needs;
  `dynamic_sampling` takes all that teach of the batches that it sampled.
"""

"""Attention over a packed row: each token sees its ancestors and itself.

The models ask for it by the name `TREE`, which transformers' attention interface looks up in every layer; what a
forward pass attends with travels down to the layers as the keyword `tree`. Three ways, equal up to rounding: `blocks`
(CPU), `flex` (CUDA), `masked` (anywhere). Decoding attends through `kv_cache`.

Shape suffixes: H query heads, K key and value heads, L tokens of the row, D channels of a head, T tokens of a part.
"""

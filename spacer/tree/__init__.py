"""The prefix tree: what prompts share is computed once, and so is what a prompt's completions share.

    video ──┬── question 1 ──┬── completion 1        a Segment: tokens and the segment that they follow
            │                ├── …                   a token sees its ancestors and itself, nothing else
            │                └── completion G        its position goes on from its parent's last, on all three axes
            └── question 2 ──┬── …

`share` finds what prompts have in common, `pack` lays trees and completions out in rows of a bounded length, and
`PackedRow.unpack` puts the log-probabilities of a row's completion tokens back in order. All of it is exact: a token's
ancestors are the tokens before it in the unpacked sequence, at the same positions.
"""

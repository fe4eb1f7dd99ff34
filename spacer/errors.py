"""What users can mend themselves."""

from __future__ import annotations


class UserError(ValueError):
    """Ends a run with its message alone: it names the value, the rule and the remedy."""

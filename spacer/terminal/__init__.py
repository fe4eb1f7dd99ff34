"""Terminal output: control characters escaped, secrets masked, commands ready to paste."""

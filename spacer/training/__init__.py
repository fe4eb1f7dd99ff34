"""The Lightning modules, and what Lightning calls beside them."""

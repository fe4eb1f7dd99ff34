"""Several processes: how they share the work, a model spread over them, what they tell one another."""

"""What a run shows: tables, figures and rollouts. Import its modules; the package itself imports nothing."""

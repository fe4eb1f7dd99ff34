"""What a run shows: tables, figures and rollouts. Import the modules; this package imports nothing by itself."""

"""Plans, runs and reads back sweeps."""

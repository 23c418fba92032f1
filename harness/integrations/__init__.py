"""The harness inside other trainers: each module needs what its trainer brings, and numpy for the measures."""

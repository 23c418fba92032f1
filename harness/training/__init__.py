"""Training of a pack: K runs (lanes) step together; a run alone is a pack of one."""

"""The packed trainer: K runs in lockstep, a run alone being K = 1."""

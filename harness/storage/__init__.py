"""Files on disk, the truth of every run: atomic writes, journals, run folders, checkpoints, locks. Imports no torch."""

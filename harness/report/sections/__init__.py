"""The sections of a report: one file each, listed in `registry`."""

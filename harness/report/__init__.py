"""The report of a sweep: CSV tables, figures and one self-contained page, all from the sweep folder's files alone."""

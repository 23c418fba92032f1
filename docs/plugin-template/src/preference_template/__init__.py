"""Rows for the preference harness, one module per registry; each is imported only when its registry is asked."""

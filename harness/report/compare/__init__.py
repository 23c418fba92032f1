"""Sweeps side by side: their levels, the cells that match, what differs, and the page that says so."""

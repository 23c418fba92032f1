"""MythWorld, the embedded preference world: its facts, its texts and pairs, its tokens."""

"""Data: worlds, preference pairs, tokens, order and corruptions."""

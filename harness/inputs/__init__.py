"""What the runs of one source and seed share: pairs, tokens, the reference and its stored log-probs."""

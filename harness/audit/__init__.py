"""Which labels of a preference set are likely wrong: out-of-fold evidence, suspicion, planted errors, advice, page."""

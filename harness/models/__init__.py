"""Models: lane surgery, log-probs of pair rows, stored references, the one sampler."""

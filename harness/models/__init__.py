"""Decoders that train K runs at once (K lanes), log-probs of pair rows, stored reference scores, the sampler."""

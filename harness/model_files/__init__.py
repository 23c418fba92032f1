"""A model's files before anything is loaded: where they lie, their hash, what they say of its shape. No torch."""

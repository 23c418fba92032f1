"""What is looked at before anything trains: the pairs, their tokens, the reference, and what the sweep will cost."""

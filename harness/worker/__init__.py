"""What happens in a worker process: prepare a pack, train it, checkpoint it, sample, commit its runs."""

"""What happens inside one pack, from opened folders to committed runs: prepare, train, sample, measure, write."""

"""What is measured on a trained or training policy, always as per-example records."""

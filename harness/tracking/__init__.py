"""Truth on disk (journal, store) and its projection to MLflow."""

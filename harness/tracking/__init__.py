"""MLflow: finished runs sent to it from their files, its server, charts and saved views."""

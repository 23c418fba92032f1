"""Who executes tasks: one single-threaded worker process a core, or one for a GPU."""

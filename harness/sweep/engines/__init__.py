"""Who executes tasks: in this process, or one single-threaded process a core."""

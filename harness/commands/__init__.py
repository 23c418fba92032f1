"""The verbs of the command line: one function each, that parses, calls and prints; heavy imports stand inside."""

"""Where a finished policy stands on preference pairs, whoever trained it: log-probs, measures, verdict, page."""

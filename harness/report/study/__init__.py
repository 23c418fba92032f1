"""The report of a study: its page, tables and figures, from the study folder's files alone."""

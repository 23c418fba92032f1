"""What the sections of a report read: the runs of a sweep folder, cells, contrasts, facts of records."""

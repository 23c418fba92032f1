"""A YAML spec read strictly into `SweepSpec` or `StudySpec`. Imports no torch."""

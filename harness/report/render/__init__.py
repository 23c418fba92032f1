"""How a report is drawn: blocks, templates, figures, escaping."""

"""Numbers <-> bits: exact arithmetic, integer probability tables, the range coder."""

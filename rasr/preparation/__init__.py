"""What prepares sets on disk: the parts of data/<set>/prepare.py, and fixed test sets."""

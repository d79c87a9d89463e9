"""What prepares sets on disk: the scripts data/<set>/prepare.py and fixed test sets; training never comes here."""

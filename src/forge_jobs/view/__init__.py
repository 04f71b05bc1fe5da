"""What people and programs are shown, as plain dicts: the same from the command line and over HTTP."""

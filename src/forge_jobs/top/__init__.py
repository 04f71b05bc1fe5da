"""`forge-jobs top`: a live view of a store in the terminal. Needs `textual`: `pip install 'forge-jobs[tui]'`."""

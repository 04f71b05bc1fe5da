"""Measurements of forge-jobs, each beside what bare SQLite reaches in the same run on the same tables."""

"""Measurements of forge-jobs, each beside what bare SQL reaches in the same run on the same tables."""

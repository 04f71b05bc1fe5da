"""Why a job waits, a queue stands still or a schedule does not fire. Pure: what is read is handed in."""

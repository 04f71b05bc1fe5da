"""What a measurement needs of SQLite: scratch files, and what bare `sqlite3` does on them."""

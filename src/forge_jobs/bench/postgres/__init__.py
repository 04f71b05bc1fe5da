"""What a measurement needs of PostgreSQL: scratch schemas, and what bare drivers do in them."""

"""Is this database the same as that snapshot? Rows, sequences, foreign keys, the whole catalog."""

"""What a row is: columns, types and texts, as Arrow has them; no file and no Ray."""

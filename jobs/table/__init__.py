"""What a row is: its columns, types and texts in Arrow tables. Nothing here knows files or Ray."""

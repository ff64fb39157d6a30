"""Units on Ray: what brings them to their parts, and what becomes of those that end a process."""

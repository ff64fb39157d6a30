"""The processes of Ray that bring units to their parts, and what is done about units that end their process."""

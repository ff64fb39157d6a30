"""The processes of Ray that read, score and write units, and what the driver does about units that kill them."""

"""What an output directory tells of its job. It looks, and changes nothing."""

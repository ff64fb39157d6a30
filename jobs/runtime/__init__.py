"""The process and its Ray: signals, sessions, Ray Data for whole pieces of work. It knows no rows."""

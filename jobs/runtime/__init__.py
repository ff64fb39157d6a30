"""The process and its Ray: signals, sessions, Ray Data for units and stages. It knows no rows."""

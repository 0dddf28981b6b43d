"""Show it: tables, plots, one HTML file."""

"""The commands as Python functions: one file each, with the names and defaults of the command line."""

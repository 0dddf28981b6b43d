"""Know the machine: microbenchmarks, the profile and its store."""

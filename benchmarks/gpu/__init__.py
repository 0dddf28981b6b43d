"""Everything that one run on a GPU should bring home: tests, goals, a machine profile; `make test-gpu`."""

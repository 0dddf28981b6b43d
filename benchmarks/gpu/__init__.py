"""Everything that one session with a GPU should bring home: tests, goals, a machine profile; `make test-gpu`."""

"""The cross-language matrix: data, referee, table and schedule. `tests/clients/run` is its command."""

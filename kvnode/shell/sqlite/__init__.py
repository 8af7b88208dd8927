"""The `sqlite` engine: commit log, memtable and table, on sqlitedict."""

"""Programs that read the library's own source: `make house`, `make api`."""

"""The fake world: virtual clock, seeded network, a disk that loses what was not synced."""

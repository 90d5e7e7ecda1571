"""Published benchmarks, read from their official file layouts."""
